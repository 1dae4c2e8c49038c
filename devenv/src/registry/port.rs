//! A free port of loopback for the registry.

use super::convention::FIRST_PORT;
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// So many ports are tried.
const TRIED: u16 = 100;

/// Listens at the port that the user named, which must be free; else at the one
/// it had before, else at the first free one from 5001 on.
///
/// # Errors
/// When there is none.
pub(crate) fn listen(named: Option<u16>, before: Option<u16>) -> Result<TcpListener> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = named {
        return bind(port)
            .with_context(|| format!("could not listen on 127.0.0.1:{port} for the image registry"))
            .hint("choose another port with --registry-port, or leave it out for a free one");
    }
    first_free(before.into_iter().chain(FIRST_PORT..FIRST_PORT + TRIED), bind)
}

fn first_free<T>(ports: impl Iterator<Item = u16>, bind: impl Fn(u16) -> io::Result<T>) -> Result<T> {
    for port in ports {
        match bind(port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.with_context(|| format!("could not listen on 127.0.0.1:{port} for the image registry")),
        }
    }
    Err(CommandError::new(format!("no port from {FIRST_PORT} to {} is free for the image registry", FIRST_PORT + TRIED - 1)))
        .hint("name one with --registry-port, or leave the registry out with --no-registry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_passed_over_but_not_one_that_was_named() {
        let in_use = |port: u16| if port < 5003 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(port) };
        assert_eq!(first_free(FIRST_PORT.., in_use).unwrap(), 5003);
        assert!(first_free(5001..5003, in_use).unwrap_err().to_string().contains("no port from 5001"));
        assert!(first_free(5001.., |_| Err::<(), _>(io::ErrorKind::PermissionDenied.into())).is_err());
        let taken = listen(None, None).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(listen(Some(port), None).unwrap_err().to_string().contains(&format!("127.0.0.1:{port}")));
        assert_ne!(listen(None, Some(port)).unwrap().local_addr().unwrap().port(), port);
    }
}
