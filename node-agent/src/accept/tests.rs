//! What is followed, what is kept, and what is read back from disk.

use serde_json::json;

use super::*;
use crate::model::example;

fn object(generation: i64, entries: &[Value]) -> RawHostState {
    RawHostState { uid: "u".to_owned(), generation, entries: entries.to_vec(), ..RawHostState::default() }
}

fn value(entry: &TopologyEntry) -> Value {
    serde_json::to_value(entry).expect("plain data")
}

fn accepted(entry: &TopologyEntry) -> Accepted {
    accept(&Accepted::default(), &object(1, &[value(entry)])).accepted
}

fn refusals(entry: Value) -> Vec<(String, Reason, String)> {
    let judged = accept(&Accepted::default(), &object(1, &[entry]));
    assert!(judged.accepted.entries.is_empty());
    judged.refused.into_iter().map(|(name, refusal)| (name, refusal.reason, refusal.message)).collect()
}

#[test]
fn an_entry_that_disappears_is_kept_until_it_was_confirmed() {
    let name = &example().name;
    let gone = object(2, &[]);
    let mut former = accepted(&example());
    assert!(accept(&former, &gone).accepted.entries.contains_key(name), "absence is no instruction");
    for state in [EntryState::Absent, EntryState::Released] {
        former.entries.get_mut(name).expect("there").entry.state = state;
        former.entries.get_mut(name).expect("there").reached_by.clear();
        assert!(accept(&former, &gone).accepted.entries.contains_key(name), "not confirmed yet");
        former.entries.get_mut(name).expect("there").reached_by = "0.1.0".to_owned();
        assert!(!accept(&former, &gone).accepted.entries.contains_key(name));
    }
}

#[test]
fn a_same_entry_stays_reached_and_a_changed_one_does_not() {
    let name = &example().name;
    let mut former = accepted(&example());
    former.entries.get_mut(name).expect("there").reached_by = "0.1.0".to_owned();
    let same = accept(&former, &object(7, &[value(&example())])).accepted;
    assert_eq!((same.generation, same.entries[name].reached_by.as_str()), (7, "0.1.0"));
    let mut other = example();
    other.files[0].content.push('x');
    let changed = accept(&former, &object(8, &[value(&other)])).accepted;
    assert_eq!(changed.entries[name].reached_by, "");
    assert!(changed.entries[name].written.contains("/etc/lamina/files/orchestrator/orchestrator.env"));
}

fn in_term(number: i64, object: RawHostState) -> RawHostState {
    RawHostState { term: Term::new(number).expect("a term"), ..object }
}

#[test]
fn what_an_older_term_wrote_changes_nothing_and_says_so() {
    let former = accept(&Accepted::default(), &in_term(5, object(7, &[value(&example())]))).accepted;
    let mut released = example();
    released.state = EntryState::Released;
    let again = RawHostState { uid: "v".to_owned(), ..object(1, &[value(&released)]) };
    for older in [0, 4] {
        let object = in_term(older, again.clone());
        assert_eq!(accept(&former, &object), Judged { accepted: former.clone(), refused: BTreeMap::new() });
        let told = older_term(&former, &object).expect("it is told");
        assert_eq!(told.reason, Reason::OlderTerm);
        assert!(told.message.starts_with(&format!("spec.term is `{older}`: ")), "{}", told.message);
        assert!(told.message.contains("it was 5"), "{}", told.message);
    }
    for later in [5, 6] {
        let object = in_term(later, again.clone());
        assert_eq!(older_term(&former, &object), None);
        let accepted = accept(&former, &object).accepted;
        assert_eq!((accepted.uid.as_str(), accepted.term), ("v", object.term));
    }
}

#[test]
fn a_lagging_replica_is_no_older_operator() {
    let former = accept(&Accepted::default(), &in_term(5, object(7, &[]))).accepted;
    let before = in_term(4, object(6, &[]));
    assert_eq!((accept(&former, &before).accepted, older_term(&former, &before)), (former, None));
}

#[test]
fn a_state_that_knows_no_terms_is_read() {
    let stored = stored(&accepted(&example())).1;
    assert!(!stored.contains("\"term\""), "{stored}");
    assert!(matches!(recall(&[Some(stored.into_bytes()), None]), Recalled::Accepted(read) if read.term == Term::NONE));
}

#[test]
fn what_is_not_understood_or_breaks_a_rule_is_refused_with_its_path() {
    let mut unknown = value(&example());
    unknown["services"][0]["execStartPre"] = json!("/bin/sh");
    let told = refusals(unknown);
    assert_eq!((told[0].0.as_str(), told[0].1), ("orchestrator", Reason::NotUnderstood));
    assert!(told[0].2.contains("services[0].execStartPre"), "{}", told[0].2);

    let mut foreign = value(&example());
    foreign["slices"][0]["unit"] = json!("other-control.slice");
    assert_eq!(refusals(foreign)[0].1, Reason::InvalidSpec);

    let mut protected = value(&example());
    protected["services"][0]["unit"] = json!("sshd.service");
    assert_eq!(refusals(protected).len(), 1);

    let mut injected = value(&example());
    injected["services"][0]["command"] = json!(["/bin/x", "a\n[Service]\nUser=root"]);
    assert_eq!(refusals(injected)[0].1, Reason::NotUnderstood);

    assert_eq!(refusals(json!(7))[0].0, "?");
}

#[test]
fn one_bad_entry_hides_no_other() {
    let judged = accept(&Accepted::default(), &object(1, &[json!({ "name": "bad" }), value(&example())]));
    assert_eq!((judged.accepted.entries.len(), judged.refused.len()), (1, 1));
}

#[test]
fn the_newest_whole_copy_wins() {
    let mut older = accepted(&example());
    older.sequence = 4;
    let newer = Accepted { sequence: 5, generation: 9, ..older.clone() };
    let bytes = |accepted: &Accepted| stored(accepted).1.into_bytes();
    let read = |copies: [Option<Vec<u8>>; 2]| match recall(&copies) {
        Recalled::Accepted(accepted) => accepted.sequence,
        Recalled::Nothing | Recalled::Newer { .. } => 0,
    };
    assert_eq!(read([Some(bytes(&older)), Some(bytes(&newer))]), 5);
    for length in [0, 10, 100, bytes(&newer).len() - 1] {
        assert_eq!(read([Some(bytes(&older)), Some(bytes(&newer)[..length].to_vec())]), 4);
    }
    let mut flipped = bytes(&newer);
    flipped[200] ^= 1;
    assert_eq!(read([None, Some(flipped)]), 0);
    assert_ne!(stored(&older).0, stored(&newer).0, "the copies alternate");
}

#[test]
fn a_newer_format_is_recognised_and_not_read() {
    let newer = Accepted { schema: 2, ..accepted(&example()) };
    assert_eq!(recall(&[Some(stored(&newer).1.into_bytes()), None]), Recalled::Newer { schema: 2 });
}
