//! Writes the emulator's command line: the machine a snapshot was taken of and the one it is restored into are the same.

use anyhow::Result;

use crate::{
    host::{Layout, frame, text},
    image::{disk::Disk, qemu::Qemu},
    program,
};

/// How many commands can run in a guest at the same time.
pub const LANES: usize = 4;

/// The guest's file of the command channel `lane`, relative to its folder.
pub fn socket(lane: usize) -> String {
    format!("lane{lane}.sock")
}

/// The emulator's control socket, relative to the guest's folder.
pub const MONITOR: &str = "monitor.sock";

/// What the guest's kernel and boot said, relative to its folder.
pub const CONSOLE: &str = "console.log";

/// The guest's disk, relative to its folder.
pub const DISK: &str = "disk.qcow2";

/// Where a guest reaches the API server.
pub const API_SERVER: &str = "10.0.2.100:6443";

/// Where a guest reaches its registry of images.
pub const REGISTRY: &str = "10.0.2.101:5000";

/// Where an agent answers those who watch it.
pub const AGENT_PORT: u16 = 9641;

/// The ports of this machine's loopback that a guest can reach; nothing else is there for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Behind [`API_SERVER`].
    pub api_server: Option<u16>,
    /// Behind [`REGISTRY`].
    pub registry: Option<u16>,
    /// The other way round: where this machine reaches the guest's [`AGENT_PORT`].
    pub agent: Option<u16>,
}

/// What makes an emulated machine boot fast; AppArmor and SELinux stay off.
/// A kernel that falls over the emulator's races while it boots (6.12 does now and then on a busy machine) boots again, and
/// so does a systemd that gives up: 257 freezes once one of its generators hangs for 90 s.
const KERNEL: &str = "console=ttyS0 rdinit=/init quiet oops=panic panic=1 mitigations=off \
                      no_timer_check tsc=reliable random.trust_cpu=on rcupdate.rcu_expedited=1 cryptomgr.notests audit=0 apparmor=0 systemd.show_status=0 \
                      systemd.crash_reboot=1";

/// The hardware of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its CPUs and nodes.
    pub layout: Layout,
    /// The memory of each node, in MiB.
    pub node_mebibytes: u32,
}

impl Machine {
    /// The arguments without the network: everything a snapshot depends on.
    pub fn arguments(&self, qemu: &Qemu, disk: &Disk) -> Result<Vec<String>> {
        let mut arguments = words(
            "-M pc -accel tcg,thread=multi -cpu qemu64,+rdrand -nodefaults -no-user-config -display none -rtc base=utc \
             -action reboot=shutdown",
        );
        for folder in &qemu.firmware {
            arguments.extend(["-L".to_owned(), text(folder)?.to_owned()]);
        }
        arguments.extend(self.processors_and_memory());
        arguments.extend(["-kernel".to_owned(), text(&disk.vmlinuz)?.to_owned()]);
        arguments.extend(["-initrd".to_owned(), text(&disk.initrd)?.to_owned()]);
        arguments.extend(["-append".to_owned(), KERNEL.to_owned()]);
        arguments.extend(words(&format!(
            "-drive file={DISK},format=qcow2,if=none,id=disk -device virtio-blk-pci,drive=disk"
        )));
        arguments.extend(words(&format!("-chardev file,id=console,path={CONSOLE},append=on -serial chardev:console")));
        arguments.extend(words(&format!("-qmp unix:{MONITOR},server=on,wait=off")));
        arguments.extend(words("-device virtio-net-pci,netdev=net,romfile= -device virtio-serial-pci,max_ports=8"));
        arguments.extend((0..LANES).flat_map(lane));
        Ok(arguments)
    }

    fn processors_and_memory(&self) -> Vec<String> {
        let nodes = self.layout.nodes();
        let cpus = self.layout.cpus();
        // As many sockets as nodes where that divides evenly, as on real servers.
        let sockets = if cpus.is_multiple_of(nodes.len()) { nodes.len() } else { 1 };
        let cores = cpus / sockets;
        let memory = nodes.len() * self.node_mebibytes as usize;
        let mut arguments = words(&format!("-smp {cpus},sockets={sockets},cores={cores} -m {memory}M"));
        for (node, cpus) in nodes.iter().enumerate() {
            let cpus: String = cpus.to_string().split(',').map(|range| format!(",cpus={range}")).collect();
            let size = self.node_mebibytes;
            arguments.extend(words(&format!("-object memory-backend-ram,id=memory{node},size={size}M")));
            arguments.extend(words(&format!("-numa node,nodeid={node}{cpus},memdev=memory{node}")));
        }
        arguments
    }
}

/// The network of a guest: nothing but what it may reach.
pub fn network(Reach { api_server, registry, agent }: Reach) -> Result<Vec<String>> {
    let mut network = "user,id=net,ipv6=off,restrict=on".to_owned();
    for (address, port) in [(API_SERVER, api_server), (REGISTRY, registry)] {
        let Some(port) = port else { continue };
        let relay = program::built("lamina-lab")?;
        // The emulator reads a doubled comma as one, and splits the command as a shell does.
        let command = format!("'{}' relay {port}", text(&relay)?).replace(',', ",,");
        network.push_str(&format!(",guestfwd=tcp:{address}-cmd:{command}"));
    }
    if let Some(port) = agent {
        network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{port}-:{AGENT_PORT}"));
    }
    Ok(vec!["-netdev".to_owned(), network])
}

fn lane(lane: usize) -> Vec<String> {
    let (socket, prefix, port) = (socket(lane), frame::PORT_PREFIX, lane + 1);
    words(&format!(
        "-chardev socket,id=lane{lane},path={socket},server=on,wait=off \
         -device virtserialport,chardev=lane{lane},name={prefix}{lane},nr={port}"
    ))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(layout: &str) -> String {
        let machine = Machine { layout: layout.parse().unwrap(), node_mebibytes: 512 };
        machine.processors_and_memory().join(" ")
    }

    #[test]
    fn every_node_gets_its_cpus_and_memory() {
        let arguments = of("0-7,16-19/8-15");
        assert!(arguments.starts_with("-smp 20,sockets=2,cores=10 -m 1024M"), "{arguments}");
        assert!(arguments.contains("-numa node,nodeid=0,cpus=0-7,cpus=16-19,memdev=memory0"), "{arguments}");
        assert!(arguments.ends_with("-numa node,nodeid=1,cpus=8-15,memdev=memory1"), "{arguments}");
    }

    #[test]
    fn nodes_that_do_not_share_evenly_share_a_socket() {
        assert!(of("0-3/4-6").starts_with("-smp 7,sockets=1,cores=7"));
    }

    #[test]
    fn a_guest_without_api_server_reaches_nothing() {
        assert_eq!(network(Reach::default()).unwrap(), ["-netdev", "user,id=net,ipv6=off,restrict=on"]);
    }
}
