//! Records on their way out: collected in chunks, written by a thread of their own, dropped and counted when nobody reads.
//!
//! The prober must never wait for its reader: a pipe that is full would look like an outage.

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use super::record::{MAX_SITES, Record, SiteIndex, UNKNOWN_SITE, encode_header};

/// Chunks that wait for the reader; with the flush interval of 10 ms more than 10 s of records.
const MAX_CHUNKS: usize = 1024;
/// A chunk that grows past this is sent without waiting for the flush.
const CHUNK_BYTES: usize = 32 * 1024;

/// Where records go.
pub(super) struct Output {
    chunks: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    chunk_records: u64,
    sites: HashMap<String, SiteIndex>,
    /// Records dropped so far.
    pub dropped: u64,
    /// The reader is gone.
    pub closed: bool,
}

impl Output {
    /// Starts the writing thread and sends the stream header.
    pub(super) fn start(
        mut target: impl Write + Send + 'static,
        vantages: u16,
        addresses: u16,
    ) -> std::io::Result<Output> {
        let (chunks, received) = sync_channel::<Vec<u8>>(MAX_CHUNKS);
        std::thread::Builder::new().name("probe-output".into()).spawn(move || {
            for chunk in received {
                if target.write_all(&chunk).and_then(|()| target.flush()).is_err() {
                    return;
                }
            }
        })?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        encode_header(vantages, addresses, &mut chunk);
        let sites = HashMap::new();
        let mut output = Output { chunks, chunk, chunk_records: 0, sites, dropped: 0, closed: false };
        output.flush();
        Ok(output)
    }

    /// Adds one record.
    pub(super) fn push(&mut self, record: &Record) {
        record.encode(&mut self.chunk);
        self.chunk_records += 1;
        if self.chunk.len() > CHUNK_BYTES {
            self.flush();
        }
    }

    /// The index of a site; a new one is announced first.
    pub(super) fn site(&mut self, name: Option<String>) -> SiteIndex {
        let Some(name) = name else {
            return UNKNOWN_SITE;
        };
        if let Some(index) = self.sites.get(&name) {
            return *index;
        }
        if self.sites.len() >= MAX_SITES {
            return UNKNOWN_SITE;
        }
        let index = self.sites.len() as SiteIndex + 1;
        self.push(&Record::Site { index, name: name.clone() });
        self.sites.insert(name, index);
        index
    }

    /// Hands what was collected to the writing thread.
    pub(super) fn flush(&mut self) {
        if self.chunk.is_empty() || self.closed {
            return;
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let records = std::mem::take(&mut self.chunk_records);
        match self.chunks.try_send(chunk) {
            Ok(()) => {}
            Err(TrySendError::Disconnected(_)) => self.closed = true,
            Err(TrySendError::Full(_)) => {
                self.dropped += records;
                // A site may have been announced in the chunk that is gone.
                for (name, index) in &self.sites {
                    Record::Site { index: *index, name: name.clone() }.encode(&mut self.chunk);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::record::{Reader, Span};
    use super::*;

    /// A pipe whose writer waits for permission to write each chunk.
    struct Gate(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.1.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_sleeps_costs_records_but_never_site_names() {
        let (permit, permits) = channel();
        let (bytes_in, bytes_out) = channel();
        let mut output = Output::start(Gate(permits, bytes_in), 1, 1).unwrap();
        let record = Record::Late(Span { from_ns: 1, until_ns: 2 });
        // The header waits in the thread or the channel; fill what is left, then announce a site in a chunk that is lost.
        while output.dropped == 0 {
            output.push(&record);
            output.flush();
        }
        assert_eq!(output.site(Some("lon".into())), 1);
        output.flush();
        let dropped = output.dropped;
        assert!(dropped >= 2);
        for _ in 0..MAX_CHUNKS + 2 {
            permit.send(()).unwrap();
        }
        let mut stream: Vec<u8> = Vec::new();
        for _ in 0..MAX_CHUNKS {
            stream.extend(bytes_out.recv().unwrap());
        }
        output.push(&record);
        output.flush();
        drop(output);
        drop(permit);
        stream.extend(bytes_out.iter().flatten());
        let mut reader = Reader::new(stream.as_slice());
        let mut sites = Vec::new();
        while reader.read(|r| sites.extend(matches!(r, Record::Site { .. }).then_some(r))).unwrap() {}
        assert_eq!(sites, [Record::Site { index: 1, name: "lon".into() }]);
    }

    #[test]
    fn a_reader_that_is_gone_closes_the_output() {
        let (permit, permits) = channel();
        let (bytes_in, _) = channel();
        drop(permit);
        let mut output = Output::start(Gate(permits, bytes_in), 1, 1).unwrap();
        while !output.closed {
            output.push(&Record::Late(Span { from_ns: 1, until_ns: 2 }));
            output.flush();
        }
        assert_eq!(output.site(None), UNKNOWN_SITE);
    }
}
