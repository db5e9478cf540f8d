//! Packet captures: the octets of TCP streams, and the reverse.

use std::collections::BTreeMap;

/// Source and destination, addresses and ports as they stand in the packet.
pub type Flow = Vec<u8>;

/// The octets of each direction of each TCP connection, from the first one seen to the first one missing.
pub fn streams(capture: &[u8]) -> Vec<Vec<u8>> {
    flows(capture).into_values().collect()
}

/// The same by source and destination.
pub fn flows(capture: &[u8]) -> BTreeMap<Flow, Vec<u8>> {
    let mut flows: BTreeMap<Flow, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    let mut first: BTreeMap<Flow, u32> = BTreeMap::new();
    for frame in frames(capture) {
        if let Some((flow, sequence, octets)) = segment(frame) {
            let first = *first.entry(flow.clone()).or_insert(sequence);
            // Sequence numbers wrap; what lies before the first one counts as far ahead and is never reached.
            let offset = u64::from(sequence.wrapping_sub(first));
            let known = flows.entry(flow).or_default().entry(offset).or_default();
            if octets.len() > known.len() {
                *known = octets.to_vec();
            }
        }
    }
    flows.into_iter().map(|(flow, segments)| (flow, joined(segments))).collect()
}

fn joined(segments: BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    let mut stream: Vec<u8> = vec![];
    for (offset, octets) in segments {
        let have = stream.len() as u64;
        if offset > have {
            break;
        }
        stream.extend(octets.iter().skip((have - offset) as usize));
    }
    stream
}

fn frames(capture: &[u8]) -> Vec<&[u8]> {
    let little = matches!(capture[0], 0xd4 | 0x4d);
    assert!(little, "a classic capture, little-endian");
    let mut rest = &capture[24..];
    let mut frames = vec![];
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some(frame) = after.get(..length) else { break };
        frames.push(frame);
        rest = &after[length..];
    }
    frames
}

/// Ethernet, IPv4 or IPv6 without extension headers, TCP.
fn segment(frame: &[u8]) -> Option<(Flow, u32, &[u8])> {
    let packet = frame.get(14..)?;
    let (addresses, tcp) = match frame.get(12..14)? {
        [0x08, 0x00] if packet.get(9) == Some(&6) => {
            let head = usize::from(packet[0] & 0xf) * 4;
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            (packet.get(12..20)?, packet.get(head..length)?)
        }
        [0x86, 0xdd] if packet.get(6) == Some(&6) => {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (packet.get(8..40)?, packet.get(40..40 + length)?)
        }
        _ => return None,
    };
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let octets = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    // SYN takes a number of its own; the captures made by a program that puts octets into it forget that.
    let syn = u32::from(tcp.get(13)? & 0x02 != 0 && octets.is_empty());
    Some(([addresses, &tcp[..4]].concat(), sequence.wrapping_add(syn), octets))
}

/// A capture of one TCP stream to a port, a segment for each message.
pub fn capture(port: u16, messages: &[Vec<u8>]) -> Vec<u8> {
    /// LINKTYPE_RAW: packets begin with their IP header.
    const RAW: u32 = 101;
    let mut out = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
    out.extend_from_slice(&RAW.to_le_bytes());
    let mut sequence: u32 = 1;
    for message in messages {
        let length = 40 + message.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&(length as u32).to_le_bytes());
        let [high, low] = (length as u16).to_be_bytes();
        out.extend_from_slice(&[0x45, 0, high, low, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        out.extend_from_slice(&40_000u16.to_be_bytes());
        out.extend_from_slice(&port.to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        out.extend_from_slice(message);
        sequence += message.len() as u32;
    }
    out
}
