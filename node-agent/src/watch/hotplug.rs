//! Hears from the kernel when a CPU comes or goes: nothing else tells, neither systemd nor inotify.

use std::io;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// The group of messages that come from the kernel itself (udev's own are in group 2).
const KERNEL: u32 = 1;

/// A socket on which the kernel announces changes of devices, netlink(7) `NETLINK_KOBJECT_UEVENT`.
pub struct Hotplug {
    // tokio's only socket type that takes any datagram socket and asks no more than recv(2) of it.
    socket: UnixDatagram,
}

impl Hotplug {
    /// Opens the socket; no capability is needed to listen.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        Ok(Self { socket: UnixDatagram::from_std(socket.into())? })
    }

    /// Waits until a CPU came or went, or so much happened at once that it may have.
    pub async fn next(&mut self) {
        let mut buffer = [0; 8192];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) if !is_of_a_cpu(&buffer[..length]) => {}
                // An overflow of the queue is told as an error once.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// A message begins with `ACTION@PATH` and a zero byte.
fn is_of_a_cpu(message: &[u8]) -> bool {
    let head = message.split(|byte| *byte == 0).next().unwrap_or_default();
    let Some((action, path)) = std::str::from_utf8(head).ok().and_then(|head| head.split_once('@')) else {
        return false;
    };
    matches!(action, "online" | "offline" | "add" | "remove") && path.starts_with("/devices/system/cpu/cpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_that_come_or_go_count() {
        assert!(is_of_a_cpu(b"offline@/devices/system/cpu/cpu18\0ACTION=offline\0"));
        assert!(is_of_a_cpu(b"online@/devices/system/cpu/cpu18\0"));
        assert!(!is_of_a_cpu(b"add@/devices/virtual/net/veth0\0"));
        assert!(!is_of_a_cpu(b"change@/devices/system/cpu/cpu18\0"));
        assert!(!is_of_a_cpu(b"libudev\0\xfe\xed"));
    }

    #[tokio::test]
    async fn the_kernel_lets_anybody_listen() {
        assert!(Hotplug::new().is_ok());
    }
}
