//! A change as a plan for people.

use std::fmt;

use super::{Change, KeyChange, Sign};

impl Sign {
    /// As a plan has it in front of a line.
    pub fn mark(self) -> char {
        match self {
            Sign::Added => '+',
            Sign::Removed => '-',
            Sign::Changed => '~',
        }
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "~ {} = {old} -> {new}", self.key),
            (None, Some(new)) => write!(f, "+ {} = {new}", self.key),
            (Some(old), None) => write!(f, "- {} = {old}", self.key),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "{} at {}: nothing changes", self.service, self.site);
        }
        let count = |sign| self.tables.iter().filter(|t| t.sign == sign).count();
        let [added, changed, removed] = [Sign::Added, Sign::Changed, Sign::Removed].map(count);
        writeln!(f, "{} at {}: {added} to add, {changed} to change, {removed} to remove", self.service, self.site)?;
        for table in &self.tables {
            let name = if table.name.is_empty() { String::new() } else { format!(" {}", table.name) };
            let effect = if table.effect.is_empty() { String::new() } else { format!(": {}", table.effect) };
            writeln!(f, "  {} {}{name}{effect}", table.sign.mark(), table.table)?;
            // A table that comes or goes is in the file as a whole: its effect is what matters.
            for key in table.keys.iter().filter(|_| table.sign == Sign::Changed) {
                writeln!(f, "      {key}")?;
            }
        }
        for upstream in &self.upstreams {
            writeln!(f, "  {}", upstream.sentence)?;
        }
        for restart in &self.needs_restart {
            writeln!(f, "  needs a restart: {} ({})", restart.key, restart.why)?;
        }
        for surprise in &self.surprises {
            writeln!(f, "  needs --yes: {surprise}")?;
        }
        Ok(())
    }
}
