//! Every cell: octets of the packet, reasons to discard, states against what is heard.

use super::*;

fn sample() -> Control {
    Control {
        diagnostic: Diagnostic::NEIGHBOUR_SIGNALLED_DOWN,
        state: State::Up,
        poll: true,
        final_bit: false,
        control_independent: true,
        demand: false,
        multiplier: 3,
        my_discriminator: 0x0102_0304,
        your_discriminator: 0x0506_0708,
        desired_min_tx_us: 50_000,
        required_min_rx_us: 300_000,
        required_min_echo_rx_us: 50_000,
    }
}

#[test]
fn octets_are_those_of_the_rfc() {
    let octets = [0x23, 0xe8, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0xc3, 0x50, 0, 4, 0x93, 0xe0, 0, 0, 0xc3, 0x50];
    assert_eq!(sample().encode(), octets);
    assert_eq!(Control::decode(&octets), Ok((sample(), false)));
    // What a Cisco router sent in the capture of the Wireshark wiki: Down, no diagnostic, Detect Mult 5.
    let cisco = [
        0x20, 0x40, 0x05, 0x18, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x42, 0x40, 0x00, 0x0f,
        0x42, 0x40, 0x00, 0x00, 0x00, 0x00,
    ];
    let (control, authenticated) = Control::decode(&cisco).unwrap();
    assert_eq!((control.state, control.multiplier, control.desired_min_tx_us), (State::Down, 5, 1_000_000));
    assert!(!authenticated);
    assert_eq!(control.encode(), cisco);
}

#[test]
fn every_flag_and_state_reads_back() {
    for bits in 0..=255_u8 {
        let mut octets = sample().encode();
        octets[1] = bits & !0x05;
        let (control, _) = Control::decode(&octets).unwrap();
        assert_eq!(control.encode(), octets, "{bits:02x}");
    }
    for code in 0..32 {
        let control = Control { diagnostic: Diagnostic::new(code), ..sample() };
        assert_eq!(Control::decode(&control.encode()), Ok((control, false)));
        assert!(!control.diagnostic.to_string().is_empty());
    }
}

/// Each reason, in the order of RFC 5880 §6.8.6: a packet with several faults is discarded for the first.
#[test]
fn every_reason_to_discard() {
    let mut hand = Hand::up(config());
    let good = { Control { state: State::Up, ..hand.control }.encode().to_vec() };
    let with = |at: usize, octet: u8| {
        let mut bytes = good.clone();
        bytes[at] = octet;
        bytes
    };
    let zeroed = |range: std::ops::Range<usize>| {
        let mut bytes = good.clone();
        bytes[range].fill(0);
        bytes
    };
    let mut authenticated = with(1, 0xc4);
    authenticated[3] = 28;
    authenticated.extend([1, 4, 1, b'x']);
    let all_wrong = [0_u8; 24].to_vec();
    let elsewhere = Remote { address: Ipv4Addr::new(192, 0, 2, 9).into(), ..remote() };
    let mut unknown = good.clone();
    unknown[8] ^= 1;
    let mut anew = zeroed(8..12);
    anew[1] = 0x40;
    for (discard, from, ttl, bytes) in [
        (Discard::Truncated, remote(), Some(255), good[..23].to_vec()),
        (Discard::Truncated, remote(), Some(255), Vec::new()),
        (Discard::Version, remote(), Some(255), with(0, 0x40)),
        (Discard::Version, remote(), Some(255), all_wrong),
        (Discard::Length, remote(), Some(255), with(3, 23)),
        (Discard::Length, remote(), Some(255), with(3, 25)),
        (Discard::Length, remote(), Some(255), with(1, 0xc4)),
        (Discard::Multiplier, remote(), Some(255), with(2, 0)),
        (Discard::Multipoint, remote(), Some(255), with(1, 0xc1)),
        (Discard::MyDiscriminator, remote(), Some(255), zeroed(4..8)),
        (Discard::UnknownSession, remote(), Some(255), unknown),
        (Discard::YourDiscriminator, remote(), Some(255), zeroed(8..12)),
        (Discard::Stranger, elsewhere, Some(255), anew),
        (Discard::Address, elsewhere, Some(255), good.clone()),
        (Discard::Address, Remote { multihop: true, ..remote() }, Some(255), good.clone()),
        (Discard::Address, Remote { scope: 2, ..remote() }, Some(255), good.clone()),
        (Discard::Ttl, remote(), Some(254), good.clone()),
        (Discard::Ttl, remote(), None, good.clone()),
        (Discard::Authentication, remote(), Some(255), authenticated),
    ] {
        let (before, received) = (hand.discarded(discard), hand.status().counters.received);
        hand.datagram(from, ttl, hand.now, bytes.clone());
        assert_eq!(hand.discarded(discard), before + 1, "{discard:?} {bytes:02x?}");
        assert_eq!(hand.status().counters.received, received, "{discard:?}");
        assert_eq!(hand.state(), State::Up);
    }
    assert_eq!(hand.notices, [Notice::Ttl, Notice::Authentication], "each is told once");
    hand.input(In::Disable { session: S });
    hand.say(State::Up);
    assert_eq!(hand.discarded(Discard::AdminDown), 1);
    assert_eq!(Discard::ALL.iter().filter(|d| hand.discarded(**d) == 0).count(), 0, "all were seen");
    let mut names: Vec<_> = Discard::ALL.iter().map(|d| d.name()).collect();
    names.dedup();
    assert_eq!(names.len(), Discard::ALL.len());
}

/// Octets beyond the length field are no fault (RFC 5880 §6.8.6 compares with the payload only upwards).
#[test]
fn octets_behind_the_packet_are_ignored() {
    let mut bytes = sample().encode().to_vec();
    bytes.extend([0xff; 40]);
    assert_eq!(Control::decode(&bytes), Ok((sample(), false)));
}

/// Our state × the state heard (RFC 5880 §6.2, §6.8.6).
#[test]
fn every_transition() {
    use State::{AdminDown, Down, Init, Up};
    for (ours, heard, next) in [
        (Down, AdminDown, Down),
        (Down, Down, Init),
        (Down, Init, Up),
        (Down, Up, Down),
        (Init, AdminDown, Down),
        (Init, Down, Init),
        (Init, Init, Up),
        (Init, Up, Up),
        (Up, AdminDown, Down),
        (Up, Down, Down),
        (Up, Init, Up),
        (Up, Up, Up),
        (AdminDown, AdminDown, AdminDown),
        (AdminDown, Down, AdminDown),
        (AdminDown, Init, AdminDown),
        (AdminDown, Up, AdminDown),
    ] {
        let mut hand = match ours {
            Up => Hand::up(config()),
            _ => Hand::new(config()),
        };
        hand.control.desired_min_tx_us = 1_000_000;
        hand.drive(Duration::ZERO);
        match ours {
            Init => _ = hand.say(Down),
            AdminDown => _ = hand.input(In::Disable { session: S }),
            Down | Up => {}
        }
        assert_eq!(hand.state(), ours);
        hand.states.clear();
        hand.drive(1100 * MS * u32::from(ours != Up));
        let sent = hand.say(heard);
        assert_eq!(hand.state(), next, "{ours:?} hears {heard:?}");
        assert_eq!(hand.states.len(), usize::from(ours != next));
        // A change is told at once; nothing else is said out of turn.
        let told: Vec<State> = sent.iter().map(|c| c.state).collect();
        assert_eq!(told, if ours == next { vec![] } else { vec![next] }, "{ours:?} hears {heard:?}");
        let diagnostic = match (ours, heard) {
            (AdminDown, _) => Diagnostic::ADMINISTRATIVELY_DOWN,
            (Init | Up, AdminDown) | (Up, Down) => Diagnostic::NEIGHBOUR_SIGNALLED_DOWN,
            _ => Diagnostic::NONE,
        };
        assert_eq!(hand.status().diagnostic, diagnostic);
    }
}
