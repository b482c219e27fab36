//! Reads hwloc's XML, as `lstopo --of xml` writes it: versions 2.x and 3.0, by the published grammar (`hwloc2.dtd`) and
//! what 3.0 changes in it: types of devices are a set of bits, and facts about the whole stand beside the objects.

use lamina_crds::hardware::{Device, NumaNode};
use lamina_crds::id_set::{IdSet, Kind};
use lamina_crds::{Bytes, CpuSet, Hardware, NodeSet};
use roxmltree::{Document, Node, ParsingOptions};

use super::kinds::{Kinds, by_values};
use super::settle::{Claims, settle};
use super::sysfs::from_words;

/// The elements and texts of the largest machines are some hundred thousand.
const MOST_ELEMENTS: u32 = 5_000_000;
/// The longest name of a device that the schema takes, and the longest PCI address.
const LONGEST_NAME: usize = 64;
const LONGEST_ADDRESS: usize = 32;
/// Bits of a device's type since hwloc 3: storage, network.
const STORAGE: u64 = 1;
const NETWORK: u64 = 1 << 4;
/// What distances mean, `HWLOC_DISTANCES_KIND_MEANS_LATENCY`.
const LATENCY: u64 = 1 << 2;

/// Why an export cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LstopoError {
    /// It is not XML.
    #[error("this is no XML ({0}); export the machine with `lstopo --of xml FILE`")]
    Xml(roxmltree::Error),
    /// It is XML of something else.
    #[error("this is XML, but <{0}> is not <topology>; export the machine with `lstopo --of xml FILE`")]
    NoTopology(String),
    /// It was written by hwloc 1 or by one that is not known yet.
    #[error("version `{0}` of hwloc's XML: 2 and 3 are read; export the machine again with lstopo of hwloc 2 or 3")]
    Version(String),
    /// It has no CPU that may be used.
    #[error("no processing unit in it may be used; export the whole machine with `lstopo --of xml FILE`")]
    NoCpu,
}

/// The inventory of the machine that was exported. CPUs that hwloc knows but left out, because they were offline or not
/// allowed, count as offline.
///
/// # Errors
/// Fails when the text is not hwloc's XML of version 2 or 3, or holds no CPU.
pub fn from_lstopo(xml: &str) -> Result<Hardware, LstopoError> {
    let options = ParsingOptions { allow_dtd: true, nodes_limit: MOST_ELEMENTS, ..ParsingOptions::default() };
    let document = Document::parse_with_options(xml, options).map_err(LstopoError::Xml)?;
    let root = document.root_element();
    if root.tag_name().name() != "topology" {
        return Err(LstopoError::NoTopology(root.tag_name().name().to_owned()));
    }
    let version = root.attribute("version").unwrap_or("1");
    let export = match version.split('.').next() {
        Some("2") => Export { root, devices: device_before_3 },
        Some("3") => Export { root, devices: device_since_3 },
        Some(_) | None => return Err(LstopoError::Version(version.to_owned())),
    };
    let claims = export.claims();
    if claims.usable.is_empty() { Err(LstopoError::NoCpu) } else { Ok(settle(claims)) }
}

type Element<'a> = Node<'a, 'a>;

/// An export, and how its version tells whether a device is one of network or storage.
struct Export<'a> {
    root: Element<'a>,
    devices: fn(Element) -> bool,
}

impl<'a> Export<'a> {
    fn claims(&self) -> Claims {
        let machine = self.root.children().find(|child| child.has_tag_name("object"));
        let of_machine = |name: &str| machine.and_then(|machine| cpus(machine, name));
        let units: CpuSet = self.objects("PU").filter_map(os_index).collect();
        let usable = of_machine("allowed_cpuset").map_or_else(|| units.clone(), |allowed| units.intersection(&allowed));
        let sets = |kind: &'static str| self.objects(kind).filter_map(|object| cpus(object, "cpuset")).collect();
        let packages = self.objects("Package").filter_map(|object| Some((os_index(object)?, cpus(object, "cpuset")?)));
        Claims {
            present: of_machine("complete_cpuset").unwrap_or_default().union(&units),
            usable,
            packages: packages.collect(),
            nodes: self.nodes(machine.and_then(|machine| set(machine.attribute("allowed_nodeset")?))),
            cores: sets("Core"),
            level_3: sets("L3Cache"),
            level_2: sets("L2Cache"),
            kinds: self.kinds(),
            devices: self.found_devices(),
            kernel: self.fact("OSRelease"),
            ..Claims::default()
        }
    }

    fn objects(&self, kind: &'static str) -> impl Iterator<Item = Element<'a>> + use<'a> {
        let objects = self.root.descendants().filter(|element| element.has_tag_name("object"));
        objects.filter(move |object| object.attribute("type") == Some(kind))
    }

    /// The nodes. One without CPUs of its own has here those that are nearest, so what several claim belongs to ordinary
    /// memory before special one, and to the lower number.
    fn nodes(&self, allowed: Option<NodeSet>) -> Vec<NumaNode> {
        let is_special = |object: &Element| !matches!(object.attribute("subtype"), None | Some("" | "DRAM"));
        let mut objects: Vec<(u32, Element)> =
            self.objects("NUMANode").filter_map(|object| Some((os_index(object)?, object))).collect();
        objects.sort_by_key(|(id, object)| (is_special(object), *id));
        objects.dedup_by_key(|(id, _)| *id);
        let ids: Vec<u32> = objects.iter().map(|(id, _)| *id).collect();
        let distances = self.distances();
        let distance = |from: u32, to: u32| {
            let (indexes, values) = distances.as_ref()?;
            let place = |id: u32| indexes.iter().position(|index| *index == u64::from(id));
            let value = values.get(place(from)?.checked_mul(indexes.len())?.checked_add(place(to)?)?)?;
            u32::try_from(*value).ok()
        };
        let memory = |id: u32, object: &Element| match &allowed {
            Some(allowed) if !allowed.contains(id) => Bytes::new(0),
            Some(_) | None => Bytes::new(number(*object, "local_memory").unwrap_or_default()),
        };
        let node = |(id, object): &(u32, Element)| NumaNode {
            id: *id,
            cpus: cpus(*object, "cpuset").unwrap_or_default(),
            memory: memory(*id, object),
            distances: ids.iter().filter_map(|to| distance(*id, *to)).collect(),
        };
        objects.iter().map(node).collect()
    }

    /// The first table of latencies between nodes: their numbers, and row by row the values.
    fn distances(&self) -> Option<(Vec<u64>, Vec<u64>)> {
        let is_of_nodes = |table: &Element| {
            table.attribute("type") == Some("NUMANode")
                && table.attribute("indexing") == Some("os")
                && number(*table, "kind").is_some_and(|kind| kind & LATENCY != 0)
        };
        let mut tables = self.root.children().filter(|child| child.has_tag_name("distances2"));
        let table = tables.find(is_of_nodes)?;
        // Long rows stand in several elements.
        let numbers = |name: &'static str| {
            let parts = table.children().filter(move |child| child.has_tag_name(name));
            let words = parts.filter_map(|part| part.text()).flat_map(str::split_whitespace);
            words.map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()
        };
        Some((numbers("indexes")?, numbers("u64values")?))
    }

    /// The kinds by the first fact that tells two, in the same order as from files.
    fn kinds(&self) -> Option<Kinds> {
        let kinds: Vec<(CpuSet, Element)> = self
            .root
            .children()
            .filter(|child| child.has_tag_name("cpukind"))
            .filter_map(|kind| Some((cpus(kind, "cpuset")?, kind)))
            .collect();
        let by_fact = |name: &str| {
            let value = |(cpus, kind): &(CpuSet, Element)| Some((cpus.clone(), info(*kind, name)?.parse().ok()?));
            by_values(&kinds.iter().map(value).collect::<Option<Vec<(CpuSet, u64)>>>()?)
        };
        let of_type = |is_wanted: fn(&str) -> bool| {
            let wanted = kinds.iter().filter(|(_, kind)| info(*kind, "CoreType").is_some_and(is_wanted));
            wanted.fold(CpuSet::new(), |all, (cpus, _)| all.union(cpus))
        };
        let by_type = || {
            let performance = of_type(|name| name == "IntelCore");
            let efficiency = of_type(|name| name.starts_with("Intel") && name != "IntelCore");
            (!performance.is_empty() && !efficiency.is_empty()).then_some(Kinds { performance, efficiency })
        };
        by_fact("LinuxCapacity").or_else(by_type).or_else(|| by_fact("FrequencyMaxMHz"))
    }

    fn found_devices(&self) -> Vec<Device> {
        let mut devices: Vec<Device> =
            self.objects("OSDev").filter(|object| (self.devices)(*object)).filter_map(device).collect();
        devices.sort_by(|a, b| (a.node.is_none(), &a.name).cmp(&(b.node.is_none(), &b.name)));
        devices
    }

    /// A fact about the whole machine, which version 2 has in the first object and version 3 beside it.
    fn fact(&self, name: &str) -> String {
        let machine = self.root.children().find(|child| child.has_tag_name("object"));
        let value = info(self.root, name).or_else(|| info(machine?, name));
        value.unwrap_or_default().chars().take(128).collect()
    }
}

/// Block (0) and network (2) devices; memory that looks like a block device is neither.
fn device_before_3(object: Element) -> bool {
    let is_memory = object.attribute("name").is_some_and(|name| name.starts_with("dax"))
        || object.attribute("subtype") == Some("CXLMem");
    match number(object, "osdev_type") {
        Some(0) => !is_memory,
        Some(2) => true,
        Some(_) | None => false,
    }
}

fn device_since_3(object: Element) -> bool {
    number(object, "osdev_type").is_some_and(|types| types & (STORAGE | NETWORK) != 0)
}

/// A device hangs below its PCI function, and that below whatever has the same place in the machine.
fn device(object: Element) -> Option<Device> {
    let name = object.attribute("name").filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME)?;
    let function = object.ancestors().find(|above| above.attribute("type") == Some("PCIDev"));
    let pci = function.and_then(|function| function.attribute("pci_busid"));
    let nodes: Option<NodeSet> = object.ancestors().find_map(|above| set(above.attribute("nodeset")?));
    Some(Device {
        name: name.to_owned(),
        pci: pci.filter(|address| address.len() <= LONGEST_ADDRESS).map(str::to_owned),
        node: nodes.filter(|nodes| nodes.len() == 1).and_then(|nodes| nodes.first()),
    })
}

fn os_index(object: Element) -> Option<u32> {
    let index = number(object, "os_index").and_then(|index| u32::try_from(index).ok());
    index.filter(|index| *index <= lamina_crds::id_set::LARGEST_ID)
}

fn number(element: Element, attribute: &str) -> Option<u64> {
    element.attribute(attribute)?.trim().parse().ok()
}

fn info<'a>(element: Element<'a>, name: &str) -> Option<&'a str> {
    let mut facts = element.children().filter(|child| child.has_tag_name("info"));
    facts.find(|fact| fact.attribute("name") == Some(name))?.attribute("value")
}

fn cpus(element: Element, attribute: &str) -> Option<CpuSet> {
    set(element.attribute(attribute)?)
}

/// hwloc's form of a bitmap: hexadecimal words of 32 bits, the highest first, with commas between; a word of zeros may
/// be empty. `None` for one without end (`0xf...f`), which no machine has.
fn set<K: Kind>(text: &str) -> Option<IdSet<K>> {
    let word = |word: &str| match word.strip_prefix("0x").unwrap_or(word) {
        "" => Some(0),
        digits => u32::from_str_radix(digits, 16).ok(),
    };
    let words: Option<Vec<u32>> = text.trim().split(',').map(word).collect();
    Some(from_words(words?.into_iter().rev()))
}

#[cfg(test)]
mod tests {
    use lamina_crds::hardware::CoreKind;

    use super::*;

    const VERSION_2: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x0000000f" complete_cpuset="0x0000001f" allowed_cpuset="0x0000000f"
      nodeset="0x00000003" complete_nodeset="0x00000003" allowed_nodeset="0x00000003" gp_index="1">
    <info name="OSRelease" value="6.1.0"/>
    <object type="Package" os_index="3" cpuset="0x0000000f">
      <object type="L3Cache" cpuset="0x00000003" depth="3">
        <object type="NUMANode" os_index="0" cpuset="0x00000003" nodeset="0x00000001" local_memory="1048576"/>
        <object type="Core" cpuset="0x00000003">
          <object type="PU" os_index="0" cpuset="0x00000001"/>
          <object type="PU" os_index="1" cpuset="0x00000002"/>
        </object>
        <object type="PCIDev" pci_busid="0000:3b:00.0" nodeset="0x00000001">
          <object type="OSDev" name="eth0" osdev_type="2"/>
          <object type="OSDev" name="card0" osdev_type="1"/>
        </object>
      </object>
      <object type="NUMANode" os_index="1" cpuset="0x0000000c" nodeset="0x00000002" local_memory="2097152"/>
      <object type="Core" cpuset="0x00000004"><object type="PU" os_index="2" cpuset="0x00000004"/></object>
      <object type="Core" cpuset="0x00000008"><object type="PU" os_index="3" cpuset="0x00000008"/></object>
    </object>
  </object>
  <distances2 type="NUMANode" nbobjs="2" kind="5" name="NUMALatency" indexing="os">
    <indexes length="4">0 1 </indexes>
    <u64values length="6">10 21 </u64values>
    <u64values length="6">22 10 </u64values>
  </distances2>
  <cpukind cpuset="0x00000003"><info name="CoreType" value="IntelCore"/></cpukind>
  <cpukind cpuset="0x0000000c"><info name="CoreType" value="IntelAtom"/></cpukind>
</topology>"#;

    #[test]
    fn an_export_of_version_2_is_read() {
        let hardware = from_lstopo(VERSION_2).expect("an export");
        assert_eq!((hardware.cpus.online.to_string(), hardware.cpus.offline.to_string()), ("0-3".into(), "4".into()));
        assert_eq!((hardware.packages.len(), hardware.packages[0].id), (1, 3));
        assert_eq!(hardware.cores.len(), 1);
        assert_eq!(hardware.l3.len(), 1);
        assert_eq!(hardware.numa_nodes[1].memory, Bytes::mebi(2));
        assert_eq!(hardware.numa_nodes[1].distances, [22, 10]);
        assert_eq!(hardware.core_types[1].core_type, CoreKind::Efficiency);
        assert_eq!(hardware.core_types[1].cpus.to_string(), "2-3");
        let device = Device { name: "eth0".into(), pci: Some("0000:3b:00.0".into()), node: Some(0) };
        assert_eq!((hardware.devices, hardware.kernel.as_str()), (vec![device], "6.1.0"));
    }

    #[test]
    fn version_3_names_devices_by_bits_and_facts_beside_the_objects() {
        let xml = r#"<topology version="3.0">
          <object type="Machine" os_index="0" cpuset="0x00000001" nodeset="0x1" allowed_cpuset="0x00000001">
            <object type="PU" os_index="0" cpuset="0x00000001"/>
            <object type="NUMANode" os_index="0" cpuset="0x00000001" nodeset="0x1" local_memory="4096"/>
            <object type="OSDev" name="ib0" osdev_type="48"/>
            <object type="OSDev" name="dax0.0" osdev_type="2"/>
            <object type="OSDev" name="sda" osdev_type="1"/>
          </object>
          <info name="OSRelease" value="6.12"/>
        </topology>"#;
        let hardware = from_lstopo(xml).expect("an export");
        let names: Vec<_> = hardware.devices.iter().map(|device| (device.name.as_str(), device.node)).collect();
        assert_eq!(names, [("ib0", Some(0)), ("sda", Some(0))]);
        assert_eq!(hardware.kernel, "6.12");
    }

    #[test]
    fn what_is_no_export_says_how_to_make_one() {
        let message = |xml: &str| from_lstopo(xml).expect_err("no export").to_string();
        assert!(message("").contains("this is no XML"));
        assert!(message("<svg/>").contains("<svg> is not <topology>"));
        assert!(message("<topology/>").contains("version `1` of hwloc's XML"));
        assert!(message(r#"<topology version="2.0"/>"#).contains("no processing unit"));
        assert!([message(""), message("<a/>")].iter().all(|text| text.contains("lstopo --of xml")));
    }

    #[test]
    fn a_bitmap_of_hwloc_is_a_set() {
        let list = |text: &str| set(text).map(|set: CpuSet| set.to_string());
        assert_eq!(list("0x00000003").as_deref(), Some("0-1"));
        assert_eq!(list("0x80000000,,0x1").as_deref(), Some("0,95"));
        assert_eq!(list("0x0").as_deref(), Some(""));
        assert_eq!(list("0xf...f"), None);
    }
}
