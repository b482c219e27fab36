use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn wanted() -> WantedStart {
    WantedStart {
        command: vec!["/bin/router".to_owned(), "-v".to_owned()],
        user: "app".to_owned(),
        given: map(&[("A", "1")]),
        derived: map(&[("GOMAXPROCS", "8")]),
        limits: Limits::from([("LimitNOFILE", (4096, 4096))]),
        ..WantedStart::default()
    }
}

/// A process that runs as is asked.
fn found() -> StartSettings {
    StartSettings {
        command: vec!["/bin/router".to_owned(), "-v".to_owned()],
        process: vec!["/bin/router".to_owned(), "-v".to_owned()],
        user: "app".to_owned(),
        environment: vec!["A=1".to_owned(), "GOMAXPROCS=8".to_owned()],
        limits: Limits::from([("LimitNOFILE", (4096, 4096)), ("LimitCORE", (0, u64::MAX))]),
        default_limits: Limits::from([("LimitNOFILE", (1024, 524_288)), ("LimitCORE", (0, u64::MAX))]),
        ..StartSettings::default()
    }
}

fn compared(wanted: &WantedStart, found: &StartSettings) -> (Vec<String>, Vec<String>) {
    let Comparison { differences, derived } = compare(wanted, None, found, None);
    (differences, derived)
}

#[test]
fn a_process_that_runs_as_is_asked_differs_in_nothing() {
    assert_eq!(compared(&wanted(), &found()), (vec![], vec![]));
}

#[test]
fn each_difference_is_named() {
    type Change = fn(&mut StartSettings);
    let change = |change: Change| {
        let mut found = found();
        change(&mut found);
        compared(&wanted(), &found).0.join("; ")
    };
    let cases: [(&str, Change); 9] = [
        ("another command", |found| {
            found.command = vec!["/bin/old".to_owned()];
            found.process = found.command.clone();
        }),
        ("another user", |found| found.user = "root".to_owned()),
        ("another group", |found| found.group = "wheel".to_owned()),
        ("another directory", |found| found.working_directory = "/srv".to_owned()),
        ("another LimitCORE", |found| {
            found.limits.insert("LimitCORE", (1, 1));
        }),
        ("another environment (A)", |found| found.environment = vec!["A=2".to_owned()]),
        ("another environment (B)", |found| found.environment.push("B=2".to_owned())),
        ("CPUAffinity, which no topology asks for", |found| {
            found.further.insert("CPUAffinity");
        }),
        ("perhaps another text: /etc/x was changed since", |found| {
            found.changed.insert("/etc/x".to_owned());
        }),
    ];
    for (expected, case) in cases {
        assert_eq!(change(case), expected);
    }
}

#[test]
fn a_command_line_with_variables_counts_by_what_the_process_shows() {
    let mut found = found();
    found.command = vec!["/bin/router".to_owned(), "$FLAG".to_owned()];
    assert_eq!(compared(&wanted(), &found).0, Vec::<String>::new());
    found.process = vec!["/bin/router".to_owned(), "-q".to_owned()];
    assert_eq!(compared(&wanted(), &found).0, ["another command"]);
}

#[test]
fn a_process_that_gave_itself_another_title_counts_by_what_is_loaded() {
    let found = StartSettings { process: vec!["router: idle".to_owned()], ..found() };
    assert_eq!(compared(&wanted(), &found).0, Vec::<String>::new());
}

#[test]
fn derived_variables_that_differ_wait_and_those_that_agree_do_not() {
    let mut found = found();
    found.environment = vec!["A=1".to_owned(), "GOMAXPROCS=4".to_owned()];
    assert_eq!(compared(&wanted(), &found), (vec![], vec!["GOMAXPROCS".to_owned()]));
}

#[test]
fn a_delivered_file_with_the_variables_of_a_file_of_the_host_is_the_same() {
    let mut wanted = wanted();
    wanted.files = vec![WantedFile::Content("PORT=8080\nHOST=\"x\"\n".to_owned())];
    let mut found = found();
    found.environment_files = vec!["/opt/app.env".to_owned()];
    found.contents = map(&[("/opt/app.env", "# theirs\nHOST=x\nPORT=8080\n")]);
    assert_eq!(compared(&wanted, &found), (vec![], vec![]));
    found.contents = map(&[("/opt/app.env", "PORT=1\n")]);
    assert_eq!(compared(&wanted, &found).0, ["another environment (HOST)", "another environment (PORT)"]);
}

#[test]
fn files_win_over_variables_there_and_variables_over_files_here() {
    let mut wanted = wanted();
    wanted.files = vec![WantedFile::Path("/opt/app.env".to_owned())];
    let mut found = found();
    found.environment_files = vec!["/opt/app.env".to_owned()];
    found.contents = map(&[("/opt/app.env", "A=2\n")]);
    assert_eq!(compared(&wanted, &found).0, ["another environment (A)"]);
}

#[test]
fn a_file_that_cannot_be_read_is_the_same_only_where_nothing_else_is_said() {
    let files = vec![WantedFile::Path("/opt/app.env".to_owned())];
    let mut wanted = WantedStart { files, given: BTreeMap::new(), ..wanted() };
    let mut found = found();
    found.environment = Vec::new();
    found.environment_files = vec!["/opt/app.env".to_owned()];
    assert_eq!(compared(&wanted, &found), (vec![], vec!["GOMAXPROCS".to_owned()]));
    wanted.given = map(&[("A", "1")]);
    assert_eq!(compared(&wanted, &found).0, ["another environment (a file cannot be read)"]);
}

#[test]
fn a_file_that_is_asked_for_by_its_path_may_have_changed() {
    let files = vec![WantedFile::Path("/opt/app.env".to_owned())];
    let wanted = WantedStart { files, given: BTreeMap::new(), ..wanted() };
    let mut found = found();
    found.environment = Vec::new();
    found.environment_files = vec!["/opt/app.env".to_owned()];
    found.contents = map(&[("/opt/app.env", "GOMAXPROCS=8\n")]);
    found.changed = BTreeSet::from(["/opt/app.env".to_owned()]);
    assert_eq!(compared(&wanted, &found), (vec![], vec![]));
}
