use lamina_crds::slice_topology::{Adoption, RestartPolicy};

use super::*;

fn files(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn made(list: &[(&str, &str)]) -> Import {
    import(&files(list), &Wishes::default()).expect("a topology")
}

const SLICE: (&str, &str) = ("shop-web.slice", "[Slice]\nAllowedCPUs=0-3\n");

fn service(lines: &str) -> String {
    format!("[Service]\nSlice=shop-web.slice\nUser=app\nExecStart=/srv/api\n{lines}")
}

/// What is told of a slice with these lines: the setting, its kind and what becomes of it.
fn told_of_slice(lines: &str) -> Vec<(String, Kind, String)> {
    let text = format!("[Slice]\nAllowedCPUs=0-3\n{lines}");
    let notes = made(&[("shop-web.slice", &text)]).notes.into_iter();
    notes.map(|note| (note.setting, note.kind, note.now)).collect()
}

#[test]
fn a_list_of_cpus_that_systemd_ignored_is_what_was_meant() {
    let import = made(&[("shop-web.slice", "[Slice]\nCPUAffinity=0 1 2 3\nCPUAffinity=8-9\n")]);
    assert_eq!(import.topology.spec.slices[0].cpu.set.as_ref().map(ToString::to_string).as_deref(), Some("0-3,8-9"));
    assert_eq!(import.notes.len(), 2);
    assert_eq!(import.notes[0].kind, Kind::NeverHadAnEffect);
    assert!(import.notes[0].now.contains("first time"), "{}", import.notes[0].now);
    assert_eq!(import.faults, Vec::<String>::new());
}

#[test]
fn a_list_that_works_wins_over_one_that_does_not() {
    let import =
        made(&[("shop-web.slice", "[Slice]\nCPUAffinity=0-9\nAllowedCPUs=4\nAllowedCPUs=\nAllowedCPUs=2-3\n")]);
    assert_eq!(import.topology.spec.slices[0].cpu.set.as_ref().map(ToString::to_string).as_deref(), Some("2-3"));
}

#[test]
fn what_never_had_an_effect_is_told_with_what_becomes_of_it() {
    let cases = [
        ("MemoryMax=1G # hard", "MemoryMax=1G # hard", "taken as 1G: it takes effect for the first time"),
        ("MemoryMax=1GB", "MemoryMax=1GB", "left out"),
        ("IOWeight=0", "IOWeight=0", "left out"),
        ("NUMAMask=1", "NUMAMask=1", "memory.nodes 1: it takes effect for the first time"),
        ("BlockIOWeight=500", "BlockIOWeight=500", "left out; write io.weight, 1 to 10000"),
        ("User=app", "User=app", "left out"),
        ("nonsense", "nonsense", "left out"),
    ];
    for (line, setting, now) in cases {
        assert_eq!(told_of_slice(line), [(setting.to_owned(), Kind::NeverHadAnEffect, now.to_owned())], "{line}");
    }
    assert_eq!(told_of_slice("CPUWeight=50\n")[0].1, Kind::NoPlace);
    assert_eq!(told_of_slice("MemoryMax=10%\n")[0].1, Kind::NoPlace);
    assert_eq!(told_of_slice("MemoryHigh=1.5G\nTasksMax=infinity\nCPUAccounting=yes\n"), []);
}

#[test]
fn a_service_comes_over_with_resets_quotes_and_continued_lines() {
    let text = service("Environment=A=0\nEnvironment=\nEnvironment=A=1 \"B=x y\"\nRestart=always\nRestartSec=1min\nLimitNOFILE=65536\n")
        .replace("/srv/api", "/srv/api \\\n  --name \"a b\" 100%%");
    let import = made(&[SLICE, ("shop-api.service", &text)]);
    let service = &import.topology.spec.services[0];
    let command: Vec<&str> = service.command.iter().map(|word| word.as_str()).collect();
    assert_eq!(command, ["/srv/api", "--name", "a b", "100%"]);
    let env: Vec<String> = service
        .env
        .iter()
        .map(|variable| format!("{}={}", variable.name, variable.value.as_ref().expect("a value").as_str()))
        .collect();
    assert_eq!(env, ["A=1", "B=x y"]);
    let restart = service.restart.expect("a restart");
    assert_eq!((restart.policy, restart.delay.map(|delay| delay.get())), (Some(RestartPolicy::Always), Some(60)));
    assert_eq!(service.rlimits.and_then(|limits| limits.nofile), Some(65536));
    assert_eq!(import.notes, []);
}

#[test]
fn a_drop_in_counts_after_the_file() {
    let drop_in = ("shop-api.service.d/user.conf", "[Service]\nUser=other\n");
    let import = made(&[SLICE, ("shop-api.service", &service("")), drop_in]);
    assert_eq!(import.topology.spec.services[0].user.as_ref().map(|user| user.as_str()), Some("other"));
}

#[test]
fn services_that_start_after_others_order_their_slices() {
    let other = "[Service]\nSlice=shop-db.slice\nUser=app\nExecStart=/srv/db\n";
    let after = format!("[Unit]\nAfter=network.target shop-store.service\n{}", service(""));
    let import = made(&[
        SLICE,
        ("shop-db.slice", "[Slice]\nAllowedCPUs=4\n"),
        ("shop-store.service", other),
        ("shop-api.service", &after),
    ]);
    let slices: Vec<(&str, usize)> =
        import.topology.spec.slices.iter().map(|slice| (slice.name.as_str(), slice.start_after.len())).collect();
    assert_eq!(slices, [("db", 0), ("web", 1)]);
    assert_eq!(import.faults, Vec::<String>::new());
}

#[test]
fn what_cannot_be_asked_for_is_told_and_left_out() {
    let text = service("Nice=5\nExecReload=/bin/kill -HUP $MAINPID\nType=notify\nNUMAPolicy=bind\n");
    let import = made(&[SLICE, ("shop-api.service", &text), ("shop.target", "[Unit]\n")]);
    let told: Vec<(&str, Kind)> = import.notes.iter().map(|note| (note.setting.as_str(), note.kind)).collect();
    let expected = [
        ("Nice=5", Kind::NoPlace),
        ("ExecReload=/bin/kill -HUP $MAINPID", Kind::NoPlace),
        ("Type=notify", Kind::NoPlace),
        ("NUMAPolicy=bind", Kind::NoPlace),
        ("shop.target", Kind::NoPlace),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_missing_is_asked_for() {
    let import = made(&[("shop-web.slice", "[Slice]\n"), ("shop-api.service", &service("").replace("User=app\n", ""))]);
    let faults = import.faults.join("\n");
    assert!(faults.contains("slice web: no file names its CPUs; give --cpus web=LIST"), "{faults}");
    assert!(faults.contains("user"), "{faults}");
    assert!(import.notes.iter().any(|note| note.why == "a topology runs nothing as root"), "{:?}", import.notes);
    let cpus = BTreeMap::from([("web".to_owned(), "2".parse().expect("a list"))]);
    let wishes = Wishes { cpus, replace: true, ..Wishes::default() };
    let import = super::import(&files(&[SLICE, ("shop-api.service", &service(""))]), &wishes).expect("a topology");
    assert_eq!(import.faults, Vec::<String>::new());
    assert_eq!(import.topology.spec.adoption, Some(Adoption::Replace));
}

#[test]
fn units_of_several_names_need_a_word() {
    let error = import(&files(&[SLICE, ("other-x.slice", "[Slice]\n")]), &Wishes::default()).expect_err("two names");
    assert_eq!(error, "the units begin with other, shop; give --name for one of them");
    assert!(import(&files(&[]), &Wishes::default()).is_err());
}
