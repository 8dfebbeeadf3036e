//! Hosts of our own: network namespaces on one bridge, each behind a link that can be shaped.
//!
//! Must run in a network and mount namespace made for it (`unshare --net --mount`): it names namespaces and
//! changes the bridge's side. All of it ends with that namespace.

use std::net::Ipv4Addr;
use std::process::Command;

/// A bridge at 10.77.0.1 with hosts 10.77.0.2 and up.
pub struct Nets {
    rate: Option<u64>,
}

impl Nets {
    /// `rate_mbit`: of each host's link, each way; without it links are as fast as the machine.
    pub fn new(rate_mbit: Option<u64>) -> Nets {
        run("mkdir -p /run/netns && mount -t tmpfs none /run/netns");
        run(
            "ip link add br0 type bridge && ip addr add 10.77.0.1/16 dev br0 && ip link set br0 up",
        );
        Nets { rate: rate_mbit }
    }

    /// Makes the host at this address; what is to run there begins with the words returned.
    pub fn host(&self, address: Ipv4Addr) -> Vec<String> {
        let number = address.octets()[3];
        let name = format!("h{number}");
        run(&format!(
            "ip netns add {name} && ip link add v{number} type veth peer name e{number} netns {name} \
             && ip link set v{number} master br0 up && ip -n {name} link set lo up \
             && ip -n {name} addr add {address}/16 dev e{number} && ip -n {name} link set e{number} up \
             && ip netns exec {name} sysctl -qw net.ipv4.tcp_congestion_control=cubic"
        ));
        self.shape(address, self.rate);
        ["ip", "netns", "exec", &name].map(str::to_owned).to_vec()
    }

    /// Gives a host's link another rate, each way.
    pub fn shape(&self, address: Ipv4Addr, rate_mbit: Option<u64>) {
        let number = address.octets()[3];
        let Some(rate) = rate_mbit else { return };
        // A queue of 50 ms; the burst must hold what one timer tick lets through.
        let tbf = format!("root tbf rate {rate}mbit burst 16kb latency 50ms");
        run(&format!(
            "tc qdisc replace dev v{number} {tbf} && ip netns exec h{number} tc qdisc replace dev e{number} {tbf}"
        ));
    }
}

fn run(script: &str) {
    let output = Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
}
