//! The network of a process's pod: what listens there, and connections to it.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::process::Proc;

/// How long a connection to a port of the pod may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The state of a socket that listens (`TCP_LISTEN` of `<netinet/tcp.h>`), as
/// proc_net_tcp(5) has it.
const LISTENS: u8 = 0x0a;
/// `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 0x01;

/// Where a debugger's own clients are to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A port.
    Port(SocketAddr),
    /// A name in the network namespace (unix(7), "abstract").
    Name(String),
}

/// The network namespace of a process.
#[derive(Debug)]
pub(crate) struct Network {
    /// None where it is the agent's own.
    other: Option<File>,
}

/// A TCP socket of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    state: u8,
    pub(crate) inode: u64,
}

impl Socket {
    pub(crate) fn listens(&self) -> bool {
        self.state == LISTENS
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state == ESTABLISHED
    }
}

impl Network {
    pub(crate) fn of(proc: &Proc, pid: u32) -> io::Result<Self> {
        let path = proc.live_path(pid, "ns/net");
        let is_own = fs::read_link(&path)? == fs::read_link("/proc/self/ns/net")?;
        Ok(Self { other: if is_own { None } else { Some(File::open(path)?) } })
    }

    /// Makes it the network of the calling thread, and of those that this one starts.
    pub(crate) fn enter(&self) -> io::Result<()> {
        match &self.other {
            Some(namespace) => Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?),
            None => Ok(()),
        }
    }
}

/// A connection, either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects, in the network of the calling thread.
pub(crate) fn connect(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Port(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            // Debuggers exchange small messages, one waiting for the other.
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Name(name) => Ok(Stream::Unix(UnixStream::connect_addr(&UnixAddress::from_abstract_name(name)?)?)),
    }
}

/// All TCP sockets of a process's network, its own and others'.
pub(crate) fn sockets(proc: &Proc, pid: u32) -> Vec<Socket> {
    let read = |file| String::from_utf8_lossy(&proc.read_live(pid, file).unwrap_or_default()).into_owned();
    ["net/tcp", "net/tcp6"].iter().flat_map(|file| parse(&read(file))).collect()
}

/// Whether a socket is a process's own.
pub(crate) fn has(proc: &Proc, pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let open = fs::read_dir(proc.live_path(pid, "fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| link.as_os_str() == wanted.as_str())
}

/// Where to connect to for what listens at an address: all addresses are this one's.
pub(crate) fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // One that listens for both kinds answers on this, too.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// The lines of `/proc/<pid>/net/tcp` or `tcp6` (proc_net_tcp(5)).
fn parse(text: &str) -> Vec<Socket> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        Some(Socket {
            local: SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?),
            state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Words of four bytes, each as a number of the machine's order.
fn address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Some(IpAddr::from(four)),
        Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_are_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:240D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 01 0:0 0:0 0 0 0 12 1 0\n";
        let all = parse(text);
        assert_eq!((all[0].local, all[0].listens(), all[0].inode), ("127.0.0.1:9229".parse().unwrap(), true, 4711));
        assert_eq!((reachable(all[1].local), all[1].is_connected()), ("127.0.0.1:8080".parse().unwrap(), true));
        assert_eq!(reachable("0.0.0.0:5005".parse().unwrap()), "127.0.0.1:5005".parse().unwrap());
        assert!(parse("sl\nnonsense\n").is_empty());
    }

    #[test]
    fn what_this_process_listens_on_is_its_own() {
        let (proc, pid) = (Proc::system(), std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let found = sockets(&proc, pid).into_iter().find(|socket| socket.listens() && socket.local == local).unwrap();
        assert!(has(&proc, pid, found.inode) && !has(&proc, pid, 1));
        Network::of(&proc, pid).unwrap().enter().unwrap();
        connect(&Address::Port(local)).unwrap();
    }
}
