//! A swarm of thousands in one process: the real planner, availability, standings, slots, ledger and choice
//! of neighbours over a modelled network. Time is advanced, never slept; the same seed gives the same run.
//!
//! What is modelled: equal full-duplex links ([`net`]), the latency of a request, the delay of HAVE and of
//! hashes, a hub that gives pieces in order. What is not: hashing, disks, TCP, losses.

mod net;
mod node;
mod seed;

use crate::model::{Bitfield, PIECE_BYTES};
use crate::swarm::background;
use crate::swarm::ledger::Gift;
use crate::swarm::planner::Next;
use crate::swarm::slots::{Class, Slot};
use net::{Agenda, Due, Nanos, Net, TransferId};
use node::{DOWN_SLOTS, Known, Node, SEED, after_busy};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use seed::{Answer, Ask, Seed, fresh_wait};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub nodes: u32,
    pub pieces: u32,
    /// Nodes are dealt to zones in turn; the seed is in the first.
    pub zones: u32,
    pub link_bytes_per_second: f64,
    /// The hub's rate over a link's.
    pub origin: f64,
    /// Until a request's answer begins.
    pub latency: Duration,
    /// From a piece's arrival until neighbours know.
    pub have_delay: Duration,
    /// From a piece's arrival at the seed until every node knows its hash.
    pub hash_delay: Duration,
    pub seed: u64,
}

impl Scenario {
    /// Links of 1 Gbit/s, a hub as fast, a latency of an eighth of a piece's time.
    pub fn new(nodes: u32, pieces: u32) -> Scenario {
        Scenario {
            nodes,
            pieces,
            zones: 1,
            link_bytes_per_second: 125e6,
            origin: 1.0,
            latency: Duration::from_millis(1),
            have_delay: Duration::from_millis(10),
            hash_delay: Duration::from_millis(20),
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When the last node had all, over the time in which one link or the hub carries the file once.
    pub makespan: f64,
    /// When half of the file was here from the start on, over the same: the median node and the last.
    pub half_prefix: f64,
    pub half_prefix_last: f64,
    /// Copies of the file that the seed sent.
    pub seed_copies: f64,
    /// Copies that went from one zone to another.
    pub cross_zone_copies: f64,
    pub requests: u64,
    pub busy: u64,
    /// Refusals by the seed, a second.
    pub seed_busy_rate: f64,
    /// Requests, refusals and HAVE messages over the bytes of pieces.
    pub control_share: f64,
}

/// Bytes of a request or refusal with its headers, and of a HAVE message for one run, TCP and HTTP/2
/// framing included.
const REQUEST_BYTES: u64 = 300;
const HAVE_BYTES: u64 = 170;
const SEED_ZONE: u32 = 0;
const LOOK_AGAIN: Nanos = background::LOOK_AGAIN.as_nanos() as Nanos;
const STARVED: Nanos = background::STARVED.as_nanos() as Nanos;

/// Simulates until every node has everything. `None` when that never happens.
pub fn run(scenario: &Scenario) -> Option<Report> {
    let mut world = World::new(scenario);
    world.begin();
    while world.missing > 0 {
        let event = world.agenda.next()?;
        world.handle(event);
    }
    Some(world.report())
}

enum Event {
    /// A request reaches its giver.
    Asked(Asking),
    /// A request for the seed's choice.
    AskedAny(Ask),
    /// A piece is here, if the transfer still runs at the rate of that version.
    Piece(TransferId, u32),
    Tell(u32),
    Look(u32),
    Origin(u32),
    /// Those who wait for something new have waited long enough.
    Fresh,
}

struct Asking {
    node: u32,
    giver: u32,
    run: Range<u32>,
    at: Nanos,
}

/// A run under way.
struct Flight {
    node: u32,
    giver: u32,
    run: Range<u32>,
    next: u32,
    asked_at: Nanos,
    _slot: Slot,
    gift: Option<Gift>,
}

struct World {
    scenario: Scenario,
    agenda: Agenda<Event>,
    net: Net,
    nodes: Vec<Node>,
    zones: Vec<u32>,
    seed: Seed,
    flights: Vec<Option<Flight>>,
    due: Vec<Due>,
    hash_at: Vec<Nanos>,
    asked_any_at: Vec<Nanos>,
    missing: u64,
    random: SmallRng,
    epoch: Instant,
    seed_pieces: u64,
    crossed_pieces: u64,
    requests: u64,
    busy: u64,
    told: u64,
    /// Refusals by the seed.
    seed_busy: u64,
}

impl World {
    fn new(scenario: &Scenario) -> World {
        let zone = |index: u32| index % scenario.zones;
        let mut nodes: Vec<_> = (0..scenario.nodes)
            .map(|index| Node::new(zone(index), scenario.pieces))
            .collect();
        node::acquaint(&mut nodes);
        let links = vec![scenario.link_bytes_per_second / 1e9; nodes.len() + 1];
        World {
            agenda: Agenda::new(),
            net: Net::new(links),
            zones: nodes.iter().map(|node| node.zone).collect(),
            asked_any_at: vec![0; nodes.len()],
            nodes,
            seed: Seed::new(scenario.pieces),
            flights: Vec::new(),
            due: Vec::new(),
            hash_at: vec![Nanos::MAX; scenario.pieces as usize],
            missing: u64::from(scenario.nodes) * u64::from(scenario.pieces),
            random: SmallRng::seed_from_u64(scenario.seed),
            epoch: Instant::now(),
            scenario: scenario.clone(),
            seed_pieces: 0,
            crossed_pieces: 0,
            requests: 0,
            busy: 0,
            told: 0,
            seed_busy: 0,
        }
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.agenda.now)
    }

    /// All nodes start at once.
    fn begin(&mut self) {
        let rate = self.scenario.link_bytes_per_second * self.scenario.origin;
        let piece = PIECE_BYTES as f64 / rate * 1e9;
        for index in 0..self.scenario.pieces {
            let at = f64::from(index + 1) * piece;
            self.agenda.after(at as Nanos, Event::Origin(index));
        }
        (0..self.scenario.nodes).for_each(|node| self.plan(node));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked(asking) => self.asked(asking),
            Event::AskedAny(ask) => self.asked_any(ask),
            Event::Piece(id, version) if self.net.is_here(id, version) => self.piece(id),
            Event::Piece(..) => {}
            Event::Tell(node) => self.tell(node),
            Event::Look(node) => {
                if self.nodes[node as usize].looks_at == Some(self.agenda.now) {
                    self.nodes[node as usize].looks_at = None;
                    self.plan(node);
                }
            }
            Event::Origin(index) => {
                self.seed.here.set(index, true);
                let known = self.agenda.now + self.scenario.hash_delay.as_nanos() as Nanos;
                self.hash_at[index as usize] = known;
                self.settle();
            }
            Event::Fresh => self.settle(),
        }
    }

    /// Fills the node's free slots.
    fn plan(&mut self, node: u32) {
        let now = self.now();
        while self.nodes[node as usize].in_use < DOWN_SLOTS {
            let known = Known {
                at: &self.hash_at,
                now: self.agenda.now,
                starved: STARVED,
                seed_zone: SEED_ZONE,
            };
            let salt = self.random.random();
            let next = self.nodes[node as usize].plan(&known, &self.zones, now, salt);
            match next {
                Next::Peer { id, run } => self.ask(node, id, run),
                Next::Seed { need, run_max } => self.ask_any(node, need, run_max),
                Next::Wait => return self.look_later(node),
            }
        }
    }

    fn look_later(&mut self, node: u32) {
        let at = self.agenda.now + LOOK_AGAIN;
        let state = &mut self.nodes[node as usize];
        if state.done_at.is_none() && state.looks_at.is_none() {
            state.looks_at = Some(at);
            self.agenda.after(LOOK_AGAIN, Event::Look(node));
        }
    }

    fn latency(&self) -> Nanos {
        self.scenario.latency.as_nanos() as Nanos
    }

    fn ask(&mut self, node: u32, giver: u32, run: Range<u32>) {
        let now = self.now();
        let state = &mut self.nodes[node as usize];
        state.standings.started(&giver, now);
        state.claim(run.clone(), true);
        state.in_use += 1;
        self.requests += 1;
        let at = self.agenda.now;
        let asking = Asking {
            node,
            giver,
            run,
            at,
        };
        self.agenda.after(self.latency(), Event::Asked(asking));
    }

    fn ask_any(&mut self, node: u32, need: Bitfield, run_max: u32) {
        let now = self.now();
        let state = &mut self.nodes[node as usize];
        state.in_use += 1;
        state.seed_asked += 1;
        state.standings.started(&SEED, now);
        self.requests += 1;
        self.asked_any_at[node as usize] = self.agenda.now;
        let ask = Ask {
            node,
            need,
            run_max,
            asked_at: self.agenda.now + self.latency(),
        };
        self.agenda.after(self.latency(), Event::AskedAny(ask));
    }

    fn asked(&mut self, asking: Asking) {
        let Asking {
            node,
            giver,
            run,
            at,
        } = asking;
        match self.nodes[giver as usize].slots.take(Class::Bulk) {
            Some(slot) => self.fly(node, giver, run, at, slot, None),
            None => self.refused(node, giver, run),
        }
    }

    fn refused(&mut self, node: u32, giver: u32, run: Range<u32>) {
        let (now, after) = (self.now(), after_busy(self.random.random()));
        self.busy += 1;
        self.seed_busy += u64::from(giver == SEED);
        let state = &mut self.nodes[node as usize];
        state.standings.refused(&giver, after, now);
        state.in_use -= 1;
        state.standings.ended(&giver, now);
        state.seed_asked -= u32::from(giver == SEED);
        state.claim(run, false);
        self.plan(node);
    }

    fn asked_any(&mut self, ask: Ask) {
        let (node, at) = (ask.node, self.asked_any_at[ask.node as usize]);
        match self.seed.asked(ask) {
            Answer::Busy => self.refused(node, SEED, 0..0),
            Answer::Waits => self.agenda.after(fresh_wait(), Event::Fresh),
            Answer::Gives(gift, slot) => self.give(node, at, gift, slot),
        }
    }

    fn settle(&mut self) {
        for (node, gift, slot) in self.seed.settle(self.agenda.now) {
            self.give(node, self.asked_any_at[node as usize], gift, slot);
        }
    }

    /// A gift that the node has no use for any more ends at its head.
    fn give(&mut self, node: u32, at: Nanos, gift: Gift, slot: Slot) {
        let (run, now) = (gift.run(), self.now());
        let state = &mut self.nodes[node as usize];
        let is_open = |index: &u32| !state.have.get(*index) && !state.claimed.get(*index);
        if !run.clone().all(|index| is_open(&index)) {
            state.standings.ended(&SEED, now);
            state.in_use -= 1;
            state.seed_asked -= 1;
            drop((gift, slot));
            return self.plan(node);
        }
        state.claim(run.clone(), true);
        self.fly(node, SEED, run, at, slot, Some(gift));
    }

    fn link(&self, giver: u32) -> usize {
        match giver {
            SEED => self.nodes.len(),
            peer => peer as usize,
        }
    }

    fn fly(
        &mut self,
        node: u32,
        giver: u32,
        run: Range<u32>,
        asked_at: Nanos,
        slot: Slot,
        gift: Option<Gift>,
    ) {
        let (from, now) = (self.link(giver), self.agenda.now);
        let mut due = std::mem::take(&mut self.due);
        let id = self
            .net
            .start(from, node as usize, PIECE_BYTES as f64, now, &mut due);
        self.due = due;
        if self.flights.len() <= id {
            self.flights.resize_with(id + 1, || None);
        }
        self.flights[id] = Some(Flight {
            node,
            giver,
            next: run.start,
            run,
            asked_at,
            _slot: slot,
            gift,
        });
        self.schedule();
    }

    fn schedule(&mut self) {
        for due in self.due.drain(..) {
            self.agenda
                .after(due.after, Event::Piece(due.transfer, due.version));
        }
    }

    fn piece(&mut self, id: TransferId) {
        let Some(flight) = self.flights[id].as_mut() else {
            return;
        };
        let (node, giver, index) = (flight.node, flight.giver, flight.next);
        flight.next += 1;
        let is_last = flight.next == flight.run.end;
        self.seed_pieces += u64::from(giver == SEED);
        let giver_zone = match giver {
            SEED => SEED_ZONE,
            peer => self.zones[peer as usize],
        };
        self.crossed_pieces += u64::from(giver_zone != self.zones[node as usize]);
        self.missing -= 1;
        let state = &mut self.nodes[node as usize];
        state.take(index, self.agenda.now);
        if state.untold.len() == 1 {
            let delay = self.scenario.have_delay.as_nanos() as Nanos;
            self.agenda.after(delay, Event::Tell(node));
        }
        match is_last {
            true => self.landed(id),
            false => {
                let due = self.net.go_on(id, PIECE_BYTES as f64, self.agenda.now);
                self.due.extend(due);
                self.schedule();
            }
        }
    }

    fn landed(&mut self, id: TransferId) {
        let Some(flight) = self.flights[id].take() else {
            return;
        };
        let now = self.now();
        let mut due = std::mem::take(&mut self.due);
        self.net.end(id, self.agenda.now, &mut due);
        self.due = due;
        self.schedule();
        if let Some(gift) = flight.gift {
            gift.done();
        }
        let took = Duration::from_nanos(self.agenda.now - flight.asked_at);
        let state = &mut self.nodes[flight.node as usize];
        state
            .standings
            .brought(&flight.giver, flight.run.len() as u32, took, now);
        state.in_use -= 1;
        state.standings.ended(&flight.giver, now);
        state.seed_asked -= u32::from(flight.giver == SEED);
        drop(flight._slot);
        if flight.giver == SEED {
            self.settle();
        }
        self.plan(flight.node);
    }

    /// Neighbours learn what is new, and those with a free slot look again.
    fn tell(&mut self, node: u32) {
        let news = std::mem::take(&mut self.nodes[node as usize].untold);
        let listeners = std::mem::take(&mut self.nodes[node as usize].listeners);
        for listener in &listeners {
            let state = &mut self.nodes[*listener as usize];
            self.told += 1;
            if state.done_at.is_some() {
                continue;
            }
            for index in &news {
                state
                    .holdings
                    .add(&node, *index..*index + 1, self.scenario.pieces);
            }
            if state.in_use < DOWN_SLOTS {
                self.plan(*listener);
            }
        }
        self.nodes[node as usize].listeners = listeners;
    }

    fn report(&self) -> Report {
        let scenario = &self.scenario;
        let rate = scenario.link_bytes_per_second * scenario.origin.min(1.0);
        let copy = f64::from(scenario.pieces);
        let bound = copy * PIECE_BYTES as f64 / rate * 1e9;
        let mut halves: Vec<f64> = self
            .nodes
            .iter()
            .filter_map(|node| node.half_at)
            .map(|at| at as f64 / bound)
            .collect();
        halves.sort_by(f64::total_cmp);
        let data = copy * f64::from(scenario.nodes) * PIECE_BYTES as f64;
        let control = (self.requests + self.busy) * REQUEST_BYTES + self.told * HAVE_BYTES;
        Report {
            makespan: self.agenda.now as f64 / bound,
            half_prefix: halves[halves.len() / 2],
            half_prefix_last: halves[halves.len() - 1],
            seed_copies: self.seed_pieces as f64 / copy,
            cross_zone_copies: self.crossed_pieces as f64 / copy,
            requests: self.requests,
            busy: self.busy,
            seed_busy_rate: self.seed_busy as f64 / self.agenda.now as f64 * 1e9,
            control_share: control as f64 / data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulate(scenario: &Scenario) -> Report {
        let report = run(scenario).expect("everybody gets everything");
        eprintln!("{scenario:?}\n{report:?}");
        report
    }

    #[test]
    fn two_hundred_nodes_take_little_longer_than_one_link() {
        let report = simulate(&Scenario::new(200, 512));
        assert!(report.makespan <= 1.15);
        assert!(report.half_prefix_last <= 0.75, "of a sequential read");
        assert!(report.seed_copies <= 1.2);
        assert!(report.control_share <= 0.01);
        assert!(
            report.seed_busy_rate <= 200.0 * 10.0,
            "the seed is left in peace"
        );
    }

    #[test]
    fn a_slow_hub_is_the_bound() {
        let scenario = Scenario {
            origin: 0.1,
            ..Scenario::new(200, 256)
        };
        assert!(simulate(&scenario).makespan <= 1.02);
    }

    #[test]
    fn a_piece_goes_from_zone_to_zone_about_once() {
        let scenario = Scenario {
            zones: 4,
            ..Scenario::new(200, 256)
        };
        let report = simulate(&scenario);
        assert!(report.cross_zone_copies <= 1.5 * 3.0);
        assert!(report.cross_zone_copies >= 3.0, "each zone needs one");
        assert!(report.makespan <= 1.3);
    }

    #[test]
    fn thin_links_with_long_queues_cost_no_more_than_the_real_bar_leaves() {
        let scenario = Scenario {
            link_bytes_per_second: 2.5e6,
            latency: Duration::from_millis(60),
            ..Scenario::new(20, 128)
        };
        assert!(simulate(&scenario).makespan <= 1.2);
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let scenario = Scenario {
            zones: 2,
            ..Scenario::new(30, 128)
        };
        let first = simulate(&scenario);
        assert_eq!(simulate(&scenario), first);
        let other = Scenario {
            seed: 2,
            ..scenario
        };
        assert_ne!(simulate(&other), first);
    }
}
