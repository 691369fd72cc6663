//! Tests of the connection limits.

use std::net::Ipv6Addr;

use super::*;

fn gate(limits: EdgeLimits) -> Arc<ConnectionLimiter> {
    Arc::new(ConnectionLimiter::new(move || limits, Arc::new(Metrics::new())))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Takes a permit for `address` at `now`.
fn admit(gate: &Arc<ConnectionLimiter>, address: IpAddr, now: Instant) -> Result<ConnectionPermit, ConnectionRefusal> {
    let mut place = gate.acquire()?;
    place.claim_at(address, now, gate.per_network())?;
    Ok(place)
}

fn kept(gate: &ConnectionLimiter) -> usize {
    gate.shards.iter().map(|shard| shard.lock().expect("no panic").networks.len()).sum()
}

#[test]
fn there_are_so_many_places_and_each_is_given_back() {
    let gate = gate(EdgeLimits { connections: ConnectionLimit::AtMost(2), ..EdgeLimits::default() });
    let one = gate.acquire().expect("the first");
    let _other = gate.acquire().expect("the second");
    assert_eq!(gate.acquire().expect_err("full"), ConnectionRefusal::Connections);
    drop(one);
    let _third = gate.acquire().expect("there is room again");
    assert_eq!(gate.acquire().expect_err("full"), ConnectionRefusal::Connections);
}

#[test]
fn the_automatic_limit_holds_where_none_is_set() {
    let full = |limit: ConnectionLimit, automatic: Option<usize>| {
        let limits = EdgeLimits { connections: limit, ..EdgeLimits::default() };
        let gate = Arc::new(ConnectionLimiter::new(move || limits, Arc::new(Metrics::new())).with_automatic(automatic));
        let places: Vec<_> = (0..3).map_while(|_| gate.acquire().ok()).collect();
        places.len()
    };
    assert_eq!(full(ConnectionLimit::Auto, Some(2)), 2);
    assert_eq!(full(ConnectionLimit::Auto, None), 3, "there is no limit of open files");
    assert_eq!(full(ConnectionLimit::AtMost(1), Some(2)), 1);
    assert_eq!(full(ConnectionLimit::Off, Some(2)), 3);
}

#[test]
fn an_address_has_so_many_places_and_its_neighbour_its_own() {
    let gate = gate(EdgeLimits { connections_per_ip: Some(1), ..EdgeLimits::default() });
    let now = Instant::now();
    for (same, other) in
        [("192.0.2.7", "192.0.2.8"), ("2001:db8::7", "2001:db8:0:1::7"), ("::ffff:198.51.100.1", "2001:db8:0:2::")]
    {
        let place = admit(&gate, address(same), now).expect("the first");
        assert_eq!(admit(&gate, address(same), now).expect_err("full"), ConnectionRefusal::ConnectionsPerIp);
        drop(admit(&gate, address(other), now).expect("another network"));
        drop(place);
        drop(admit(&gate, address(same), now).expect("there is room again"));
    }
    let _one = admit(&gate, address("2001:db8::1"), now).expect("the first of its /64");
    assert!(admit(&gate, address("2001:db8::ffff:0:1"), now).is_err(), "the same /64");
    let _v4 = admit(&gate, address("192.0.2.1"), now).expect("the first");
    assert!(admit(&gate, address("::ffff:192.0.2.1"), now).is_err(), "the same address in other clothes");
}

#[test]
fn who_is_refused_takes_no_place() {
    let limits =
        EdgeLimits { connections: ConnectionLimit::AtMost(2), connections_per_ip: Some(1), ..EdgeLimits::default() };
    let gate = gate(limits);
    let now = Instant::now();
    let _one = admit(&gate, address("192.0.2.1"), now).expect("the first");
    for _ in 0..10 {
        admit(&gate, address("192.0.2.1"), now).expect_err("full");
    }
    let _other = admit(&gate, address("192.0.2.2"), now).expect("the second place is free still");
}

#[test]
fn handshakes_are_so_many_a_second() {
    let gate = gate(EdgeLimits { handshakes_per_ip: Some(4), ..EdgeLimits::default() });
    let start = Instant::now();
    let ip = address("192.0.2.7");
    for _ in 0..4 {
        drop(admit(&gate, ip, start).expect("four at once"));
    }
    assert_eq!(admit(&gate, ip, start).expect_err("the fifth"), ConnectionRefusal::HandshakesPerIp);
    drop(admit(&gate, address("192.0.2.8"), start).expect("somebody else"));
    // A quarter of a second later one more is allowed; refused attempts have not delayed it.
    let later = start + Duration::from_millis(250);
    drop(admit(&gate, ip, later).expect("one more"));
    assert_eq!(admit(&gate, ip, later).expect_err("only one"), ConnectionRefusal::HandshakesPerIp);
    let after = start + Duration::from_secs(10);
    for _ in 0..4 {
        drop(admit(&gate, ip, after).expect("four again, never more"));
    }
    admit(&gate, ip, after).expect_err("the fifth");
}

#[tokio::test(start_paused = true)]
async fn s78_handshakes_that_piled_up_in_a_stop_are_not_too_many() {
    let gate = gate(EdgeLimits { handshakes_per_ip: Some(4), ..EdgeLimits::default() });
    let now = || tokio::time::Instant::now().into_std();
    let burst = |ip| (0..1000).take_while(|_| admit(&gate, ip, now()).is_ok()).count();
    let (known, new) = (address("192.0.2.7"), address("192.0.2.8"));
    let test = async {
        assert_eq!(burst(known), 4);
        tokio::time::advance(Duration::from_secs(20)).await;
        let handshakes = (burst(known), burst(new));
        assert_eq!(handshakes, (84, 44), "the pause's worth, and a second's; ten seconds' where nothing is known");
        tokio::time::sleep(SECOND).await;
        assert_eq!((burst(known), burst(new)), (4, 4), "from then on the bound holds");
    };
    crate::suspension::with_pause_record(test).await;
}

#[test]
fn addresses_are_forgotten() {
    let limits = EdgeLimits { connections_per_ip: Some(5), handshakes_per_ip: Some(5), ..EdgeLimits::default() };
    let gate = gate(limits);
    let start = Instant::now();
    let _stays = admit(&gate, address("192.0.2.7"), start).expect("a place");
    for second in 0..20_u64 {
        for number in 0..2_000_u64 {
            let network = u128::from(second * 2_000 + number) << 64;
            let now = start + Duration::from_secs(second);
            let mut place = gate.acquire().expect("a place");
            place.claim_at(Ipv6Addr::from_bits(network).into(), now, gate.per_network()).expect("its first");
            // As if dropped at once, in the test's time.
            let network = place.network.take().expect("counted");
            gate.shard(&network).release(network, now);
        }
    }
    assert!(kept(&gate) < 3 * 2_000 + SHARDS * SWEEP_AT_LEAST, "{} networks of 40,000 kept", kept(&gate));
}

#[test]
fn without_limits_nothing_is_kept() {
    let gate = gate(EdgeLimits::default());
    let places: Vec<_> =
        (0..100).map(|_| admit(&gate, address("192.0.2.7"), Instant::now()).expect("a place")).collect();
    assert_eq!(kept(&gate), 0);
    drop(places);
    assert_eq!(gate.open.load(Ordering::Relaxed), 0);
}

#[test]
fn a_connection_without_a_handshake_counts_as_a_connection_only() {
    let limits = EdgeLimits { connections_per_ip: Some(2), handshakes_per_ip: Some(1), ..EdgeLimits::default() };
    let gate = gate(limits);
    let ip = address("192.0.2.7");
    let mut places: Vec<_> = (0..3).map(|_| gate.acquire().expect("a place")).collect();
    places[0].claim_without_handshake(ip).expect("the first");
    places[1].claim_without_handshake(ip).expect("the second");
    assert_eq!(places[2].claim_without_handshake(ip), Err(ConnectionRefusal::ConnectionsPerIp));
}

#[test]
fn refusals_are_counted_each_and_told_seldom() {
    let gate = gate(EdgeLimits::default());
    for refusal in ConnectionRefusal::ALL {
        gate.record_refusal(refusal, "192.0.2.7:1".parse().expect("an address"));
        gate.record_refusal(refusal, "192.0.2.7:1".parse().expect("an address"));
        let line = format!("pulsegate_connections_refused_total{{reason=\"{}\"}} 2", refusal.reason());
        assert!(gate.metrics.encode().contains(&line), "{line}");
    }
    let mut complaints = LogRateLimit::default();
    let start = Instant::now();
    assert_eq!(complaints.due(start), Some(1), "the first at once");
    assert_eq!(complaints.due(start + Duration::from_secs(1)), None);
    assert_eq!(complaints.due(start + Duration::from_secs(4)), None);
    assert_eq!(complaints.due(start + LOG_INTERVAL), Some(3), "it stands for the silent ones too");
}
