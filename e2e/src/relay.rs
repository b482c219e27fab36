//! Carries one connection between standard input and output and a port of this machine's loopback.
//!
//! QEMU starts it for each connection a guest opens to the one address it may reach; this is the guest's only way out.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    thread,
};

use anyhow::{Context, Result};

/// Copies both ways until the server ends the connection.
pub fn relay(port: u16) -> Result<()> {
    let server =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("connecting to port {port}"))?;
    server.set_nodelay(true).with_context(|| format!("setting up the connection to port {port}"))?;
    let upload = server.try_clone().with_context(|| format!("sharing the connection to port {port}"))?;
    thread::spawn(move || {
        // A guest that has gone ends its half; the server then ends the other one.
        let _ = copy(io::stdin().lock(), &upload);
        let _ = upload.shutdown(Shutdown::Write);
    });
    copy(&server, io::stdout().lock()).with_context(|| format!("copying from port {port}"))
}

/// Passes on every piece at once: a waiting request must not sit in a buffer.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
