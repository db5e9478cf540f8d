//! `ubique replay`: runs a journal through the cores again.

mod names;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ubique_proto::bfd::{self, SessionConfig, packet::Control};
use ubique_proto::bgp::speaker;
use ubique_proto::journal::{
    CoreId, Difference, Entry, Event, Input, MAGIC, Output as CoreOutput, Parsed, Replay, is_magic, parse,
};

use crate::Exit;
use crate::arguments::{Output, ReplayArguments};
use crate::say::{say, tell, tell_raw};
use names::Names;

/// Version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// Octets read at a time.
const READ_BYTES: usize = 1 << 20;

/// Longest text of an input or output in a line, which then has 120 columns.
const TEXT_CHARS: usize = 90;

/// What came out.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    records: u64,
    inputs: u64,
    outputs: u64,
    /// Differences, at most one for a core between two anchors.
    differences: u64,
    /// Every core was replayed from its first record to its last.
    complete: bool,
    /// Octets of a record that was cut off at the end.
    cut_off: usize,
}

/// `ubique replay`.
pub fn replay(arguments: &ReplayArguments, output: Output) -> Exit {
    let mut page = Page { arguments, output, names: Names::default(), begin: None, first: true };
    match run(&arguments.journal, &mut page) {
        Ok(summary) => {
            page.end(&summary);
            if summary.differences == 0 { Exit::Fine } else { Exit::Findings }
        }
        Err(error) => {
            say!("ubique: {}: {error}", arguments.journal.display());
            Exit::BadInput
        }
    }
}

fn run(path: &Path, page: &mut Page<'_>) -> Result<Summary, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let mut head = [0; MAGIC.len()];
    if file.read_exact(&mut head).is_err() || !is_magic(&head) {
        return Err("not a journal of this version".to_owned());
    }
    let mut octets = Vec::new();
    let (mut replay, mut summary, mut at) = (Replay::default(), Summary::default(), 0);
    loop {
        match parse(&octets[at..]) {
            Parsed::Record(record, used) => {
                let entry = replay.record(*record).map_err(|e| e.to_string())?;
                summary.count(&entry);
                page.names.learn(&entry.event, replay.speaker());
                page.entry(&entry);
                at += used;
            }
            Parsed::Incomplete(_) => {
                octets.drain(..at);
                at = 0;
                if !more(&mut file, &mut octets).map_err(|e| e.to_string())? {
                    summary.cut_off = octets.len();
                    break;
                }
            }
            Parsed::Damaged(length) => {
                octets.drain(..at);
                more(&mut file, &mut octets).map_err(|e| e.to_string())?;
                if octets.len() > length {
                    return Err(format!("record {} is damaged", summary.records + 1));
                }
                summary.cut_off = octets.len();
                break;
            }
            Parsed::Nonsense => return Err(format!("nothing after record {} is a journal", summary.records)),
        }
    }
    summary.complete = replay.complete();
    Ok(summary)
}

/// Appends what comes next; false: nothing.
fn more(file: &mut File, octets: &mut Vec<u8>) -> io::Result<bool> {
    Ok(file.take(READ_BYTES as u64).read_to_end(octets)? > 0)
}

impl Summary {
    fn count(&mut self, entry: &Entry) {
        self.records += 1;
        self.differences += u64::from(entry.difference.is_some());
        match &entry.event {
            Event::Input(_) | Event::Deadline { .. } => self.inputs += 1,
            Event::Outputs { count, .. } => self.outputs += u64::from(*count),
            Event::Segment(_) | Event::Anchor { .. } | Event::Unanchored { .. } => {}
        }
    }
}

/// Where entries are written.
struct Page<'a> {
    arguments: &'a ReplayArguments,
    output: Output,
    names: Names,
    /// Time of the first record.
    begin: Option<u64>,
    first: bool,
}

impl Page<'_> {
    fn entry(&mut self, entry: &Entry) {
        let begin = *self.begin.get_or_insert(entry.time.0);
        let at = entry.time.0.saturating_sub(begin) as f64 / 1e9;
        if !self.wants(entry, at) {
            return;
        }
        match self.output {
            Output::Table => table(entry, at, &self.names),
            Output::Json => {
                let start = if self.first {
                    format!("{{\"schema_version\":{SCHEMA_VERSION},\"records\":[\n")
                } else {
                    ",\n".into()
                };
                let json = serde_json::to_string(entry).unwrap_or_else(|_| "null".to_owned());
                tell_raw!("{start}{json}");
            }
        }
        self.first = false;
    }

    fn wants(&self, entry: &Entry, at: f64) -> bool {
        let a = self.arguments;
        let core = a.core.is_none_or(|core| entry.event.core().is_none_or(|of| of.name() == core.name()));
        let time = a.from.is_none_or(|from| at >= from) && a.to.is_none_or(|to| at <= to);
        let difference = !a.differences || entry.difference.is_some();
        !a.quiet && core && time && difference
    }

    fn end(&self, summary: &Summary) {
        if self.output == Output::Json {
            let start =
                if self.first { format!("{{\"schema_version\":{SCHEMA_VERSION},\"records\":[") } else { "\n".into() };
            let json = serde_json::to_string(summary).unwrap_or_else(|_| "null".to_owned());
            tell!("{start}],\"summary\":{json}}}");
        }
        let Summary { records, inputs, outputs, differences, .. } = summary;
        let verdict = match differences {
            0 => "the same".to_owned(),
            1 => "1 difference".to_owned(),
            many => format!("{many} differences"),
        };
        say!("{records} records, {inputs} inputs and deadlines, {outputs} outputs: {verdict}");
        if !summary.complete && *differences == 0 {
            say!("some records have no state to start from and were read, not replayed");
        }
        if summary.cut_off > 0 {
            say!("the last record is cut off ({} octets): the agent did not end in good order", summary.cut_off);
        }
    }
}

fn table(entry: &Entry, at: f64, names: &Names) {
    let core = entry.event.core().map_or("", CoreId::name);
    let line = |text: &str| tell!("{:>7} {at:>12.6} {core:<7} {}", entry.number, cut(&names.put(text.to_owned())));
    match &entry.event {
        Event::Segment(s) => line(&format!("file {} of {} {}, ubique {}", s.number, s.service, s.site, s.version)),
        Event::Anchor { fresh: true, .. } => line("begins"),
        Event::Anchor { .. } => line("goes on from its recorded state"),
        Event::Unanchored { .. } => line("its state was not recorded: what follows is read, not replayed"),
        Event::Input(input) => line(&input_text(input)),
        Event::Deadline { .. } => line("deadline"),
        Event::Outputs { count, outputs, .. } if outputs.is_empty() => line(&format!("  → {count} outputs")),
        Event::Outputs { outputs, .. } => outputs.iter().for_each(|o| line(&format!("  → {}", output_text(o)))),
    }
    if let Some(difference) = &entry.difference {
        differs(difference);
    }
}

fn differs(difference: &Difference) {
    tell!("  DIFFERS: the answer to record {}", difference.record);
    let input = difference.input.as_ref().map_or("deadline".to_owned(), |i| format!("{i:?}"));
    tell!("    input     {input}");
    match &difference.expected {
        Some(expected) => expected.iter().for_each(|o| tell!("    expected  {o:?}")),
        None => tell!("    expected  {} outputs of another hash", difference.expected_count),
    }
    difference.got.iter().for_each(|o| tell!("    got       {o:?}"));
    if difference.got.is_empty() {
        tell!("    got       nothing");
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn input_text(input: &Input) -> String {
    match input {
        Input::Bgp(speaker::In::Received { conn, bytes }) => {
            format!("Received {} octets on {conn:?}: {}", bytes.len(), messages(bytes))
        }
        Input::Bgp(input) => format!("{input:?}"),
        Input::Health(input) => format!("{input:?}"),
        Input::Site(input) => format!("{input:?}"),
        Input::Bfd(bfd::In::Datagram { from, ttl, bytes, .. }) => {
            format!(
                "Datagram from {}, TTL {}: {}",
                from.address,
                ttl.map_or("unknown".into(), |t| t.to_string()),
                control(bytes)
            )
        }
        Input::Bfd(bfd::In::Add { session, config }) => {
            let (at, SessionConfig { interval, multiplier, role, .. }) = (config.remote.address, *config);
            format!("Add {session:?}: {at}, {interval:?} × {multiplier}, {role:?}")
        }
        Input::Bfd(input) => format!("{input:?}"),
        Input::Actions(input) => format!("{input:?}"),
        Input::Drain(input) => format!("{input:?}"),
    }
}

fn output_text(output: &CoreOutput) -> String {
    match output {
        CoreOutput::Bgp(speaker::Out::Send { conn, bytes }) => {
            format!("Send {} octets on {conn:?}: {}", bytes.len(), messages(bytes))
        }
        CoreOutput::Bgp(speaker::Out::Message { peer, sent, bytes, .. }) => {
            let direction = if *sent { "to" } else { "from" };
            format!("Message {direction} {peer:?}: {}", messages(bytes))
        }
        CoreOutput::Bgp(output) => format!("{output:?}"),
        CoreOutput::Health(output) => format!("{output:?}"),
        CoreOutput::Site(output) => format!("{output:?}"),
        CoreOutput::Bfd(bfd::Out::Send { session, bytes }) => format!("Send on {session:?}: {}", control(bytes)),
        CoreOutput::Bfd(output) => format!("{output:?}"),
        CoreOutput::Actions(output) => format!("{output:?}"),
        CoreOutput::Drain(output) => format!("{output:?}"),
    }
}

/// A BFD packet in words: `Up, 300 ms × 3, poll`.
fn control(bytes: &[u8]) -> String {
    match Control::decode(bytes) {
        Ok((control, _)) => {
            let interval = control.desired_min_tx_us.max(control.required_min_rx_us) as f64 / 1e3;
            let bits = [(control.poll, ", poll"), (control.final_bit, ", final"), (control.demand, ", demand")];
            let bits: String = bits.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
            format!("{:?}, {interval} ms × {}{bits}", control.state, control.multiplier)
        }
        Err(why) => format!("{} octets, discarded: {why:?}", bytes.len()),
    }
}

/// Names of the messages that begin in a piece of a stream, as far as it can be told.
fn messages(mut bytes: &[u8]) -> String {
    const NAMES: [&str; 5] = ["OPEN", "UPDATE", "NOTIFICATION", "KEEPALIVE", "ROUTE-REFRESH"];
    let mut names: Vec<(&str, usize)> = vec![];
    while let Some(head) = bytes.get(..19).filter(|head| head[..16].iter().all(|&octet| octet == 0xff)) {
        let name = NAMES.get(usize::from(head[18]).wrapping_sub(1)).copied().unwrap_or("?");
        match names.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => names.push((name, 1)),
        }
        let length = usize::from(u16::from_be_bytes([head[16], head[17]])).max(19);
        bytes = bytes.get(length..).unwrap_or(&[]);
    }
    let shown = |&(name, count): &(&str, usize)| if count > 1 { format!("{count} × {name}") } else { name.to_owned() };
    if names.is_empty() {
        "a part of a message".to_owned()
    } else {
        names.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}
