//! What Argo CD shows of objects in each state that operator and agent bring them into: its health scripts, as users install
//! them, run by the version of Lua that Argo CD speaks.

use std::time::Duration;

use lamina_simulation::api::Kind;
use lamina_simulation::api::Precondition;
use lamina_simulation::api::admission::{Author, Part};
use lamina_simulation::hand::Hand;
use lamina_simulation::scenario::{HOST, kind};
use lamina_simulation::story::Story;
use lamina_simulation::wish::{CpuWish, Wish, program};
use lamina_simulation::world::World;
use mlua::{Lua, LuaSerdeExt};
use serde_json::{Value, json};

const SCRIPTS: &str = include_str!("../../../gitops/argocd/health.yaml");

/// What Argo CD shows.
#[derive(Debug, serde::Deserialize)]
struct Health {
    status: String,
    message: String,
}

/// A cluster of one host, with everybody alive.
struct Cluster(World);

impl Cluster {
    fn new() -> Self {
        let mut world = World::new(&[kind(252)], 1, Story::default());
        world.revive();
        Self(world)
    }

    /// Applies the topology `app` and lets everybody work until nothing moves any more.
    fn applied(mut self, wish: &Wish) -> Self {
        self.0.apply("app", wish);
        self.settled()
    }

    fn settled(self) -> Self {
        self.after(30)
    }

    /// Lets everybody make so many passes, some seconds apart.
    fn after(mut self, rounds: u32) -> Self {
        for _ in 0..rounds {
            self.0.wait(Duration::from_secs(5));
            self.0.revive();
            self.0.round();
        }
        self
    }

    fn hand(mut self, hand: &Hand) -> Self {
        self.0.disturb(HOST, hand);
        self
    }

    fn paused(self) -> Self {
        self.0.api.with(|store| {
            let of_app = (Kind::SliceTopology, "app", Part::Whole);
            let pause = store.change(&Author::Admin, of_app, &Precondition::default(), |topology| {
                let mut spec = Value::clone(&topology.spec);
                spec["paused"] = json!(true);
                topology.spec = spec.into();
            });
            pause.expect("users may pause");
        });
        self
    }

    fn topology(&self) -> Health {
        self.judged(Kind::SliceTopology, "SliceTopology", "app")
    }

    fn host(&self) -> Health {
        self.judged(Kind::HostState, "HostState", HOST)
    }

    fn judged(&self, kind: Kind, word: &str, name: &str) -> Health {
        let object = self.0.api.with(|store| {
            let object = store.get(kind, name).expect("the object is there");
            json!({
                "metadata": { "name": name, "generation": object.generation },
                "spec": *object.spec,
                "status": *object.status,
            })
        });
        health(word, &without_nulls(object))
    }
}

/// The API server sends no empty status.
fn without_nulls(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// What the script for this kind says of an object.
fn health(kind: &str, object: &Value) -> Health {
    let patch: Value = serde_yaml::from_str(SCRIPTS).expect("YAML");
    let key = format!("resource.customizations.health.lamina.dev_{kind}");
    let script = patch["data"][key.as_str()].as_str().expect("a script for the kind").to_owned();
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).expect("JSON is data")).expect("a variable");
    let said = lua.load(script).eval::<mlua::Value>().expect("the script runs");
    lua.from_value(said).expect("it returns status and message")
}

fn expect(health: &Health, status: &str, words: &str) {
    assert!(health.status == status && health.message.contains(words), "{status}, {words}: {health:?}");
}

#[test]
fn nothing_is_healthy_before_somebody_has_looked() {
    let mut cluster = Cluster::new();
    cluster.0.apply("app", &Wish::app());
    expect(&cluster.topology(), "Progressing", "not looked at this generation");
    let cluster = cluster.settled();
    expect(&cluster.topology(), "Healthy", "as asked on 1 of 1 host");
    expect(&cluster.host(), "Healthy", "");
}

#[test]
fn a_change_is_in_progress_until_it_is_measured() {
    let mut cluster = Cluster::new().applied(&Wish::app());
    let mut wish = Wish::app();
    wish.slices.get_mut("runner").expect("a slice").cpu = CpuWish::Cores(4);
    cluster.0.apply("app", &wish);
    expect(&cluster.topology(), "Progressing", "not looked at this generation");
    let mut seen = Vec::new();
    for _ in 0..30 {
        cluster = cluster.after(1);
        seen.push(cluster.topology().status);
    }
    seen.dedup();
    assert_eq!(seen, ["Progressing", "Healthy"]);
}

#[test]
fn what_no_host_can_hold_is_degraded() {
    let mut wish = Wish::app();
    wish.slices.get_mut("runner").expect("a slice").cpu = CpuWish::Cores(64);
    let cluster = Cluster::new().applied(&Wish::app()).applied(&wish);
    expect(&cluster.topology(), "Degraded", "runner");
    let cluster = cluster.applied(&Wish::app());
    expect(&cluster.topology(), "Healthy", "as asked");
}

#[test]
fn a_missing_program_is_in_progress_while_it_may_still_come_and_then_degraded() {
    let cluster = Cluster::new().hand(&Hand::RemoveProgram(program("router"))).applied(&Wish::app());
    expect(&cluster.topology(), "Progressing", "router");
    expect(&cluster.host(), "Progressing", "router");
    let cluster = cluster.after(60);
    expect(&cluster.topology(), "Degraded", "router");
    expect(&cluster.host(), "Degraded", "router");
}

#[test]
fn a_paused_topology_is_suspended_and_says_what_waits() {
    let cluster = Cluster::new().applied(&Wish::app()).paused().settled();
    expect(&cluster.topology(), "Suspended", "no host waits");
    let mut wish = Wish::app();
    wish.slices.get_mut("runner").expect("a slice").cpu = CpuWish::Cores(4);
    let mut cluster = cluster;
    cluster.0.apply("app", &wish);
    let cluster = cluster.paused().settled();
    expect(&cluster.topology(), "Suspended", "1 host waits");
    expect(&cluster.host(), "Healthy", "");
}
