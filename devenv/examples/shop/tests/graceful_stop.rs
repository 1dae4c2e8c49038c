//! SIGTERM lets a request in flight finish, then the process exits with 0.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// More than the buffers of a local connection hold, so that the reply is in flight until it is read.
const BODY_LENGTH: usize = 32 << 20;

#[test]
fn a_request_in_flight_survives_sigterm() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("large.bin"), vec![b'x'; BODY_LENGTH]).unwrap();
    let mut shop = Command::new(env!("CARGO_BIN_EXE_shop"))
        .env("SHOP_LISTEN", "127.0.0.1:0")
        .env("SHOP_STATIC", root.path())
        .env_remove("SHOP_CONFIG")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut logs =
        BufReader::new(shop.stdout.take().unwrap()).lines().map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let address = logs.next().unwrap()["address"].as_str().unwrap().to_owned();

    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /large.bin HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = vec![0; 1];
    connection.read_exact(&mut reply).unwrap();

    let start = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &shop.id().to_string()]).status().unwrap().success());
    assert_eq!(logs.next().unwrap()["message"], "stopping");
    thread::sleep(Duration::from_millis(200));
    connection.read_to_end(&mut reply).unwrap();

    assert!(shop.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(reply.len() > BODY_LENGTH && reply.ends_with(b"x"));
    let (request, stopped) = (logs.next().unwrap(), logs.next().unwrap());
    assert_eq!((&request["path"], &request["status"]), (&"/large.bin".into(), &200.into()));
    assert_eq!((&stopped["message"], &stopped["abandoned_requests"]), (&"stopped".into(), &0.into()));
}
