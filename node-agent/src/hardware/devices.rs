//! Reads where network and block devices are: their PCI address and NUMA node. Devices without hardware are left out.

use std::collections::BTreeSet;

use lamina_crds::hardware::Device;

use super::sysfs::Tree;

/// The longest name that the schema takes.
const LONGEST_NAME: usize = 64;

/// The devices, those whose node is known first, network before block, virtual functions last.
pub fn read(tree: &Tree) -> Vec<Device> {
    let mut found: Vec<(Worth, Device)> = Vec::new();
    for (class, is_block) in [("sys/class/net", false), ("sys/class/block", true)] {
        for name in tree.names(class).into_iter().filter(|name| name.len() <= LONGEST_NAME) {
            found.extend(device(tree, &format!("{class}/{name}"), name, is_block));
        }
    }
    found.sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
    found.into_iter().map(|(_, device)| device).collect()
}

/// What makes a device worth knowing; less sorts first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    lacks_node: bool,
    is_virtual_function: bool,
    is_block: bool,
}

fn device(tree: &Tree, entry: &str, name: String, is_block: bool) -> Option<(Worth, Device)> {
    let is_partition = tree.text(&format!("{entry}/partition")).is_some();
    let hardware = format!("{entry}/device");
    if is_partition || !tree.has_directory(&hardware) {
        return None;
    }
    let hardware = tree.resolve(&hardware).unwrap_or(hardware);
    let functions = functions(tree, &hardware);
    let pci = functions.first().and_then(|function| function.rsplit('/').next().map(str::to_owned));
    let is_virtual_function =
        functions.first().is_some_and(|function| tree.has_directory(&format!("{function}/physfn")));
    let node = node(tree, &hardware, &functions);
    let worth = Worth { lacks_node: node.is_none(), is_virtual_function, is_block };
    Some((worth, Device { name, pci, node }))
}

/// The PCI functions behind a device, as paths of the tree: the lowest one above it. An NVMe name space that several
/// controllers serve hangs on none of them, but on a subsystem that lists them.
fn functions(tree: &Tree, hardware: &str) -> Vec<String> {
    if let Some(function) = function_above(hardware) {
        return vec![function];
    }
    let controllers = tree.names(hardware).into_iter().filter(|name| is_controller(name));
    let above = |name: String| function_above(&tree.resolve(&format!("{hardware}/{name}"))?);
    controllers.filter_map(above).collect()
}

fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn function_above(path: &str) -> Option<String> {
    let mut path = path;
    loop {
        let name = path.rsplit('/').next()?;
        if is_pci_address(name) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once('/')?.0;
    }
}

/// Whether a name is one like `0000:3b:00.0`; the domain may have more digits.
fn is_pci_address(name: &str) -> bool {
    let is_hex = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((rest, function)) = name.rsplit_once('.') else { return false };
    match *rest.split(':').collect::<Vec<_>>() {
        [domain, bus, slot] => {
            is_hex(domain, 4, 8) && is_hex(bus, 2, 2) && is_hex(slot, 2, 2) && is_hex(function, 1, 1)
        }
        _ => false,
    }
}

/// The node of the device itself, else the one node of the functions behind it; the firmware's -1 is none.
fn node(tree: &Tree, hardware: &str, functions: &[String]) -> Option<u32> {
    let told = |path: &str| tree.value(&format!("{path}/numa_node"));
    if let Some(node) = told(hardware) {
        return Some(node);
    }
    let nodes: Option<BTreeSet<u32>> = functions.iter().map(|function| told(function)).collect();
    nodes.filter(|nodes| nodes.len() == 1)?.pop_first()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_told_from_other_names() {
        assert!(is_pci_address("0000:3b:00.0") && is_pci_address("10000:e1:1f.7"));
        assert!(!is_pci_address("pci0000:3b") && !is_pci_address("virtio0") && !is_pci_address("2:0:0:0"));
    }

    #[test]
    fn the_lowest_function_above_a_device_is_its_own() {
        let path = "sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0";
        assert_eq!(function_above(path).as_deref(), Some("sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0"));
        assert_eq!(function_above("sys/devices/virtual/net/lo"), None);
    }
}
