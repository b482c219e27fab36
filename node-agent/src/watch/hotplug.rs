//! Hears from the kernel when a CPU, a NUMA node or memory comes or goes: nothing else tells, neither systemd nor
//! inotify.

use std::io;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// The group of messages that come from the kernel itself (udev's own are in group 2).
const KERNEL: u32 = 1;

/// CPUs, NUMA nodes, and the blocks of memory whose sum is a node's.
const PARTS: [&str; 3] = ["/devices/system/cpu/cpu", "/devices/system/node/node", "/devices/system/memory/memory"];

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

    /// Waits until a part of the machine came or went, or so much happened at once that it may have.
    pub async fn next(&mut self) {
        let mut buffer = [0; 8192];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) if !is_of_the_machine(&buffer[..length]) => {}
                // An overflow of the queue is told as an error once.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// A message begins with `ACTION@PATH` and a zero byte.
fn is_of_the_machine(message: &[u8]) -> bool {
    let head = message.split(|byte| *byte == 0).next().unwrap_or_default();
    let Some((action, path)) = std::str::from_utf8(head).ok().and_then(|head| head.split_once('@')) else {
        return false;
    };
    let is_part = PARTS.iter().any(|part| path.starts_with(part));
    is_part && matches!(action, "online" | "offline" | "add" | "remove")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_the_machine_that_come_or_go_count() {
        assert!(is_of_the_machine(b"offline@/devices/system/cpu/cpu18\0ACTION=offline\0"));
        assert!(is_of_the_machine(b"online@/devices/system/cpu/cpu18\0"));
        assert!(is_of_the_machine(b"add@/devices/system/node/node1\0ACTION=add\0"));
        assert!(is_of_the_machine(b"online@/devices/system/memory/memory32\0"));
        assert!(!is_of_the_machine(b"add@/devices/virtual/net/veth0\0"));
        assert!(!is_of_the_machine(b"change@/devices/system/cpu/cpu18\0"));
        assert!(!is_of_the_machine(b"libudev\0\xfe\xed"));
    }

    #[tokio::test]
    async fn the_kernel_lets_anybody_listen() {
        assert!(Hotplug::new().is_ok());
    }
}
