//! The swarm at sizes that no bench machine holds, simulated: makespan over the bound and what it costs.

use super::{Figure, figure};
use model_p2p::testing::sim::{Report, Scenario, run};

/// 512 MiB to each node over 1 Gbit/s: the shorter a file, the more its first and last pieces weigh.
const PIECES: u32 = 512;

pub fn simulated(figures: &mut Vec<Figure>) {
    for nodes in [20, 200, 1000, 5000] {
        let name = format!("{nodes} nodes, hub as fast as a link");
        report(&name, &Scenario::new(nodes, PIECES), figures);
    }
    let slow_hub = Scenario {
        origin: 0.1,
        ..Scenario::new(200, PIECES / 2)
    };
    report("200 nodes, hub ten times slower", &slow_hub, figures);
    let zones = Scenario {
        zones: 4,
        ..Scenario::new(200, PIECES)
    };
    report("200 nodes in 4 zones", &zones, figures);
}

fn report(name: &str, scenario: &Scenario, figures: &mut Vec<Figure>) {
    let Report {
        makespan,
        half_prefix_last,
        seed_copies,
        cross_zone_copies,
        seed_busy_rate,
        control_share,
        ..
    } = run(scenario).expect("everybody gets everything");
    let mut add = |what: &str, value, unit, against| {
        figure(figures, &format!("{name}: {what}"), value, unit, against);
    };
    add("makespan", makespan, "x", "the bound");
    add(
        "half of a sequential read",
        half_prefix_last,
        "x",
        "the bound",
    );
    add("sent by the seed", seed_copies, "copies", "");
    if scenario.zones > 1 {
        add("from zone to zone", cross_zone_copies, "copies", "");
    }
    add("refusals by the seed", seed_busy_rate, "/s", "");
    add("control traffic", control_share, "x", "the data");
}
