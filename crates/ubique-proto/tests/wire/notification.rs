//! Words of NOTIFICATIONs, shutdown communications (RFC 9003), hard resets (RFC 8538).

use ubique_proto::bgp::message::Notification;
use ubique_proto::bgp::notification::{CommunicationError, SHUTDOWN_COMMUNICATION_MAX, cease, code};

#[test]
fn words() {
    let cases = [
        (1, 1, "Message Header Error, Connection Not Synchronized"),
        (1, 0, "Message Header Error"),
        (2, 2, "OPEN Message Error, Bad Peer AS"),
        (2, 5, "OPEN Message Error, subcode 5"),
        (3, 1, "UPDATE Message Error, Malformed Attribute List"),
        (3, 11, "UPDATE Message Error, Malformed AS_PATH"),
        (4, 0, "Hold Timer Expired"),
        (5, 1, "Finite State Machine Error, Receive Unexpected Message in OpenSent State"),
        (6, 2, "Cease, Administrative Shutdown"),
        (6, 7, "Cease, Connection Collision Resolution"),
        (6, 10, "Cease, BFD Down"),
        (7, 1, "ROUTE-REFRESH Message Error, Invalid Message Length"),
        (8, 0, "Send Hold Timer Expired"),
        (0, 0, "code 0, subcode 0"),
        (99, 3, "code 99, subcode 3"),
    ];
    for (code, subcode, words) in cases {
        assert_eq!(Notification::new(code, subcode).to_string(), words);
    }
    for code in 0..=255 {
        for subcode in 0..=255 {
            assert!(!Notification::with_data(code, subcode, [255, 0]).describe().is_empty());
        }
    }
}

#[test]
fn shutdown_communication() {
    let sent = Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN, "новое ядро");
    assert_eq!(sent.shutdown_communication(), Ok(Some("новое ядро")));
    assert_eq!(sent.describe(), "Cease, Administrative Shutdown: \"новое ядро\"");
    // None: no data, or a length of zero.
    for data in [vec![], vec![0], vec![0, b'x']] {
        let none = Notification::with_data(code::CEASE, cease::ADMINISTRATIVE_RESET, data);
        assert_eq!(none.shutdown_communication(), Ok(None));
        assert_eq!(none.describe(), "Cease, Administrative Reset");
    }
    // Other subcodes carry none, whatever their data look like.
    assert!(Notification::cease(cease::PEER_DECONFIGURED, "x").data.is_empty());
    let other = Notification::with_data(code::CEASE, cease::PEER_DECONFIGURED, [1, b'x']);
    assert_eq!(other.shutdown_communication(), Ok(None));
    // Cut off, not UTF-8, followed by more.
    let cut = Notification::with_data(6, 2, [4, b'a', b'b']);
    assert_eq!(cut.shutdown_communication(), Err(CommunicationError::CutOff { claimed: 4, present: 2 }));
    assert!(cut.describe().ends_with("(a shutdown communication of 4 octets was promised, 2 came)"));
    for bad in [[0xc3, 0x28], [0xff, 0xfe], [b'a', 0xe2]] {
        let bad = Notification::with_data(6, 2, [vec![2], bad.to_vec()].concat());
        assert_eq!(bad.shutdown_communication(), Err(CommunicationError::NotUtf8));
    }
    assert_eq!(Notification::with_data(6, 2, *b"\x02okmore").shutdown_communication(), Ok(Some("ok")));
    // A neighbour cannot forge log lines.
    let forged = Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN, "x\nCRITICAL \u{1b}[2J");
    assert_eq!(forged.describe(), "Cease, Administrative Shutdown: \"x\\nCRITICAL \\u{1b}[2J\"");
}

#[test]
fn long_messages_are_cut_between_characters() {
    for (message, octets) in [("a".repeat(300), 255), ("é".repeat(200), 254), ("x".to_owned() + &"€".repeat(99), 253)]
    {
        let sent = Notification::cease(cease::ADMINISTRATIVE_RESET, &message);
        assert_eq!(usize::from(sent.data[0]), octets);
        assert!(octets <= SHUTDOWN_COMMUNICATION_MAX && sent.data.len() == octets + 1);
        assert_eq!(sent.shutdown_communication(), Ok(Some(&message[..octets])));
    }
}

#[test]
fn hard_reset() {
    let inner = Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN, "bye");
    let data = [vec![inner.code, inner.subcode], inner.data.clone()].concat();
    let outer = Notification::with_data(code::CEASE, cease::HARD_RESET, data);
    assert_eq!(outer.hard_reset_cause(), Some(inner));
    assert_eq!(outer.describe(), "Cease, Hard Reset (Cease, Administrative Shutdown: \"bye\")");
    assert_eq!(Notification::with_data(6, 9, [6]).hard_reset_cause(), None);
    assert_eq!(Notification::with_data(6, 9, [6, 9, 6, 9, 6, 9]).describe(), "Cease, Hard Reset");
}
