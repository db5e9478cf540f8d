//! Taking the programs off again.

use std::path::Path;

use ubique_edge::{Error, attached, detach, is_ours};
use ubique_sys::netlink::Netlink;

use super::life::Life;

/// What was taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Name of the interface.
    pub interface: String,
    /// Number of the program.
    pub program: u32,
}

/// Whether this program was built with a data plane.
pub(crate) fn is_built() -> bool {
    cfg!(feature = "sessions")
}

/// Takes every program of ubique off every interface of this network namespace, whoever's it is. Connections whose timestamps
/// it rewrote end.
///
/// # Errors
/// The kernel does not show programs (CAP_SYS_ADMIN), or refuses.
pub fn off() -> Result<Vec<Removed>, String> {
    if !is_built() {
        return Err("this program was built without a data plane".to_owned());
    }
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).map_err(|error| error.to_string())?;
    let mut removed = Vec::new();
    for link in links {
        let program = attached(link.index).map_err(|error| error.to_string())?;
        if program == 0 {
            continue;
        }
        match is_ours(program) {
            Some(true) if detach(link.index, program).map_err(|error| error.to_string())? => {
                removed.push(Removed { interface: link.name, program });
            }
            Some(_) => {}
            None => return Err(format!("the kernel does not tell what is on {}: run it as root", link.name)),
        }
    }
    Ok(removed)
}

/// Takes off what a former agent left, whose service file had `[sessions]`: by the numbers of the programs.
pub(crate) fn clear(path: &Path) -> Result<Vec<Removed>, Error> {
    let Some(life) = Life::read(path) else { return Ok(vec![]) };
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
    let mut removed = Vec::new();
    for link in links.into_iter().filter(|link| life.interfaces.contains(&link.name)) {
        let program = attached(link.index)?;
        if life.programs.contains(&program) && detach(link.index, program)? {
            removed.push(Removed { interface: link.name, program });
        }
    }
    // Without it the next agent begins anew.
    let _ = std::fs::remove_file(path);
    Ok(removed)
}
