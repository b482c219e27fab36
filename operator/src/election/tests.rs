//! Single decisions, and many histories of several operators, slow networks and stopped processes.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

fn term(number: i64) -> Term {
    Term::new(number).expect("a term")
}

fn lease(holder: &str, number: i64, version: u64) -> Lease {
    Lease {
        holder: holder.to_owned(),
        term: term(number),
        duration: DURATION,
        uid: "u".to_owned(),
        version: version.to_string(),
        renewed: version.to_string(),
    }
}

fn candidate(seen: Seen, since: u64) -> Candidate {
    let mut candidate = Candidate::new("me".to_owned());
    candidate.read(seen, at(since));
    candidate
}

/// What is written over a Lease of this version.
fn acquire(version: Option<&str>, number: i64) -> (Option<String>, Term) {
    (version.map(str::to_owned), term(number))
}

/// Of a decision to acquire: over which version, in which term.
fn acquired(decision: Decision) -> (Option<String>, Term) {
    match decision {
        Decision::Acquire { over, term } => (over.map(|lease| lease.version), term),
        other => panic!("it should be acquired: {other:?}"),
    }
}

#[test]
fn the_first_operator_of_a_cluster_leads_at_once() {
    assert_eq!(candidate(Seen::NotYet, 0).decide(Term::NONE, at(99)), Decision::Wait { until: None });
    assert_eq!(acquired(candidate(Seen::Missing, 0).decide(Term::NONE, at(0))), acquire(None, 1));
}

#[test]
fn a_lost_lease_is_waited_for_where_somebody_led_before() {
    let mut candidate = candidate(Seen::Missing, 5);
    assert_eq!(candidate.decide(term(7), at(99)), Decision::Restore { term: term(7) });
    candidate.wrote(Lease { version: "9".to_owned(), ..candidate.vacant(term(7)) }, at(99), at(101));
    assert_eq!(candidate.tenure(), None);
    assert_eq!(candidate.decide(term(7), at(115)), Decision::Wait { until: Some(at(116)) });
    assert_eq!(acquired(candidate.decide(term(7), at(116))), acquire(Some("9"), 8));
}

#[test]
fn a_lease_is_free_only_after_nobody_was_seen_to_renew_it() {
    let mut candidate = candidate(Seen::There(lease("other", 3, 10)), 100);
    assert_eq!(candidate.decide(term(3), at(114)), Decision::Wait { until: Some(at(115)) });
    candidate.see(Seen::There(lease("other", 3, 11)), at(114));
    assert_eq!(candidate.decide(term(3), at(115)), Decision::Wait { until: Some(at(129)) });
    assert_eq!(acquired(candidate.decide(term(9), at(129))), acquire(Some("11"), 10));
}

#[test]
fn a_holder_that_asks_for_more_time_gets_it_within_reason() {
    let longer = |seconds| Lease { duration: Duration::from_secs(seconds), ..lease("other", 3, 10) };
    let waits = |seconds| match candidate(Seen::There(longer(seconds)), 0).decide(term(3), at(0)) {
        Decision::Wait { until } => until,
        other => panic!("{other:?}"),
    };
    assert_eq!([waits(1), waits(30), waits(1 << 30)], [Some(at(15)), Some(at(30)), Some(at(60))]);
}

#[test]
fn what_was_handed_back_is_taken_at_once() {
    assert_eq!(acquired(candidate(Seen::There(lease("", 4, 10)), 0).decide(term(2), at(0))), acquire(Some("10"), 5));
}

#[test]
fn the_holder_renews_in_time_and_keeps_its_term() {
    let mut candidate = candidate(Seen::There(lease("", 4, 10)), 0);
    candidate.wrote(lease("me", 5, 11), at(1), at(1));
    assert_eq!(candidate.decide(term(5), at(3)), Decision::Wait { until: Some(at(4)) });
    assert_eq!(candidate.decide(term(5), at(4)), Decision::Renew { over: lease("me", 5, 11) });
    assert_eq!(candidate.tenure().and_then(|tenure| tenure.left(at(10))), Some(Duration::from_secs(1)));
    assert_eq!(candidate.tenure().and_then(|tenure| tenure.left(at(11))), None);
}

#[test]
fn a_renewal_that_nobody_answered_gives_no_right_to_write() {
    let mut candidate = candidate(Seen::There(lease("", 4, 10)), 0);
    candidate.see(Seen::There(lease("me", 5, 11)), at(2));
    assert_eq!(candidate.tenure(), None);
    assert_eq!(candidate.decide(term(4), at(2)), Decision::Renew { over: lease("me", 5, 11) });
}

#[test]
fn a_holder_that_sees_another_stops_and_one_whose_watch_lags_does_not() {
    let mut candidate = candidate(Seen::NotYet, 0);
    candidate.wrote(lease("me", 5, 11), at(1), at(1));
    candidate.see(Seen::There(lease("other", 4, 9)), at(2));
    assert_eq!(candidate.decide(term(5), at(2)), Decision::Wait { until: Some(at(4)) });
    candidate.see(Seen::There(lease("other", 6, 12)), at(3));
    assert_eq!(candidate.decide(term(5), at(3)), Decision::Stop);
    candidate.stop();
    assert_eq!(candidate.decide(term(5), at(3)), Decision::Wait { until: Some(at(18)) });
}

#[test]
fn a_host_that_knows_a_later_term_makes_the_holder_take_a_new_one() {
    let mut candidate = candidate(Seen::Missing, 0);
    candidate.wrote(lease("me", 1, 11), at(1), at(1));
    assert_eq!(acquired(candidate.decide(term(40), at(1))), acquire(Some("11"), 41));
}

#[test]
fn only_the_holder_hands_back() {
    let mut candidate = candidate(Seen::There(lease("other", 5, 11)), 0);
    assert_eq!(candidate.handed_back(), None);
    candidate.wrote(lease("me", 6, 12), at(1), at(1));
    let (over, back) = candidate.handed_back().expect("it is ours");
    assert_eq!((over.version.as_str(), back.holder.as_str(), back.term), ("12", "", term(6)));
}

/// What happens to one of several operators.
#[derive(Clone, Debug)]
enum Happening {
    /// Time passes for everybody.
    Wait(u64),
    /// An operator sees the Lease as it was some versions ago.
    Look(usize, usize),
    /// An operator does what it decides, and hears the answer.
    Act(usize),
    /// An operator's request waits on the way; it is done later.
    Send(usize),
    /// What waits on the way is done; the answer may be lost.
    Arrive(usize, bool),
    /// Somebody deletes the Lease.
    Lose,
}

fn happening() -> impl Strategy<Value = Happening> {
    let who = 0..3usize;
    prop_oneof![
        4 => (0..8000u64).prop_map(Happening::Wait),
        3 => (who.clone(), 0..3usize).prop_map(|(who, back)| Happening::Look(who, back)),
        6 => who.clone().prop_map(Happening::Act),
        2 => who.clone().prop_map(Happening::Send),
        2 => (who, any::<bool>()).prop_map(|(who, heard)| Happening::Arrive(who, heard)),
    ]
}

/// Three operators, each with a clock of its own, and the server.
struct Election {
    now: u64,
    version: u64,
    lease: Option<Lease>,
    shown: Vec<Seen>,
    candidates: Vec<Candidate>,
    on_the_way: Vec<Option<(Decision, Moment)>>,
    highest: Term,
    acquired: Vec<Term>,
}

impl Election {
    fn new() -> Self {
        let candidates = (0..3).map(|number| Candidate::new(format!("operator-{number}"))).collect();
        Self {
            now: 0,
            version: 1,
            lease: None,
            shown: vec![Seen::Missing],
            candidates,
            on_the_way: vec![None, None, None],
            highest: Term::NONE,
            acquired: Vec::new(),
        }
    }

    /// Clocks of different operators began at different times.
    fn clock(&self, who: usize) -> Moment {
        Moment::new(Duration::from_millis(self.now + 1_000_000 * who as u64))
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Wait(span) => self.now += span,
            Happening::Look(who, back) => {
                let seen = self.shown[self.shown.len().saturating_sub(1 + back)].clone();
                let now = self.clock(*who);
                self.candidates[*who].see(seen, now);
            }
            Happening::Act(who) => {
                self.send(*who);
                self.arrive(*who, true);
            }
            Happening::Send(who) => self.send(*who),
            Happening::Arrive(who, heard) => self.arrive(*who, *heard),
            Happening::Lose => {
                self.lease = None;
                self.shown.push(Seen::Missing);
            }
        }
    }

    fn send(&mut self, who: usize) {
        let now = self.clock(who);
        match self.candidates[who].decide(self.highest, now) {
            Decision::Stop => self.candidates[who].stop(),
            Decision::Wait { .. } => {}
            write @ (Decision::Acquire { .. } | Decision::Renew { .. } | Decision::Restore { .. }) => {
                self.on_the_way[who] = Some((write, now))
            }
        }
    }

    fn arrive(&mut self, who: usize, heard: bool) {
        let Some((write, began)) = self.on_the_way[who].take() else { return };
        let own = |term| self.candidates[who].lease(term);
        let (over, lease, is_new) = match write {
            Decision::Acquire { over, term } => (over, own(term), true),
            Decision::Renew { over } => (Some(over.clone()), own(over.term), false),
            Decision::Restore { term } => (None, self.candidates[who].vacant(term), false),
            Decision::Wait { .. } | Decision::Stop => return,
        };
        let now = self.clock(who);
        if over.map(|lease| lease.version) != self.lease.as_ref().map(|lease| lease.version.clone()) {
            let seen = self.lease.clone().map_or(Seen::Missing, Seen::There);
            return if heard {
                self.candidates[who].read(seen, now)
            };
        }
        self.version += 1;
        let version = self.version.to_string();
        let lease = Lease { renewed: version.clone(), version, ..lease };
        self.acquired.extend(is_new.then_some(lease.term));
        self.lease = Some(lease.clone());
        self.shown.push(Seen::There(lease.clone()));
        if heard {
            self.candidates[who].wrote(lease, began, now);
        }
    }

    fn writers(&self) -> Vec<usize> {
        let may_write =
            |who: &usize| self.candidates[*who].tenure().is_some_and(|own| own.left(self.clock(*who)).is_some());
        (0..3).filter(may_write).collect()
    }
}

proptest! {
    #[test]
    fn two_never_write_at_once_and_each_term_is_new(happenings in prop::collection::vec(happening(), 1..300)) {
        let mut election = Election::new();
        for happening in &happenings {
            election.happen(happening);
            prop_assert!(election.writers().len() <= 1, "{:?} write", election.writers());
            let latest = election.writers().first().and_then(|who| election.candidates[*who].tenure());
            election.highest = election.highest.max(latest.map_or(Term::NONE, |tenure| tenure.term));
        }
        prop_assert!(election.acquired.is_sorted_by(|one, next| one < next), "{:?}", election.acquired);
    }

    #[test]
    fn two_never_write_at_once_even_if_the_lease_is_lost(
        happenings in prop::collection::vec(prop_oneof![9 => happening(), 1 => Just(Happening::Lose)], 1..300),
    ) {
        let mut election = Election::new();
        // Somebody has led here before: hosts bear a term.
        election.highest = Term::NONE.next();
        for happening in &happenings {
            election.happen(happening);
            prop_assert!(election.writers().len() <= 1, "{:?} write", election.writers());
        }
    }

    #[test]
    fn somebody_leads_in_the_end(happenings in prop::collection::vec(happening(), 0..100)) {
        let mut election = Election::new();
        happenings.iter().for_each(|happening| election.happen(happening));
        for _ in 0..40 {
            for happening in [Happening::Look(1, 0), Happening::Act(1), Happening::Wait(1000)] {
                election.happen(&happening);
            }
        }
        prop_assert_eq!(election.writers(), [1]);
    }
}
