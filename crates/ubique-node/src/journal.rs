//! The agent's journal: where [`Recorded`](ubique_proto::journal::Recorded) cores write.
//!
//! One [`Journal`] and a clone of it in each core are all there is: cores anchor themselves when a file begins.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use ubique_model::service::JournalSettings;
use ubique_proto::journal::{Body, MAGIC, Record, Segment, Sink};

use crate::clock::now;
use crate::spool::{Counters, Spool, SpoolConfig};

/// A snapshot takes at most this part of a file.
const SNAPSHOT_SHARE: u64 = 2;

/// A journal.
#[derive(Clone)]
pub struct Journal {
    spool: Spool,
    full_outputs: bool,
}

impl Journal {
    /// Begins one, in a thread of its own.
    pub(crate) fn start(settings: &JournalSettings, version: &str, service: &str, site: &str) -> io::Result<Journal> {
        let names = [version, service, site].map(str::to_owned);
        let header = Box::new(move |number| header(&names, number));
        let spool = Spool::start(SpoolConfig::new("journal", &settings.file, service, site, header))?;
        Ok(Journal { spool, full_outputs: settings.full_outputs })
    }

    pub(crate) fn counters(&self) -> Counters {
        self.spool.counters()
    }

    /// Whether everything recorded so far is in the file.
    pub(crate) fn is_written(&self) -> bool {
        self.spool.is_written()
    }
}

fn header([version, service, site]: &[String; 3], number: u64) -> Vec<u8> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let segment = Segment {
        version: version.clone(),
        service: service.clone(),
        site: site.clone(),
        wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        number,
    };
    let record = Record { time: now(), body: Body::Segment(segment) };
    [&MAGIC[..], &record.encode()].concat()
}

impl Sink for Journal {
    fn write(&self, segment: u64, record: Vec<u8>) -> bool {
        self.spool.write(segment, record)
    }

    fn segment(&self) -> Option<u64> {
        self.spool.segment()
    }

    fn full_outputs(&self) -> bool {
        self.full_outputs
    }

    fn snapshot_max(&self) -> usize {
        usize::try_from(self.spool.size() / SNAPSHOT_SHARE).unwrap_or(usize::MAX)
    }
}
