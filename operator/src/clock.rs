//! Touches the one clock by which an operator judges its own right to write.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::election::Moment;

/// It goes on while the machine sleeps.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// No operator runs there, but `kubectl lamina` is built with its code.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Now. This clock never jumps, whoever sets the time, and goes on while the process is stopped or the machine sleeps.
pub fn moment() -> Moment {
    let now = clock_gettime(CLOCK);
    // Neither part is ever negative.
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    Moment::new(Duration::new(seconds, nanoseconds))
}
