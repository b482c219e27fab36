//! Starts child processes that the kernel ends when this process dies, whatever it dies of.
//!
//! The kernel's parent-death signal follows the *thread* that forked. Tests come and go on threads of their own, so one
//! thread that never ends does all the forking.

use std::{
    ffi::OsStr,
    io,
    process::{Child, Command},
    sync::{OnceLock, mpsc},
};

/// A command for `program` whose process gets SIGKILL when the thread that started it ends; start it with [`spawn`].
///
/// `setpriv` sets the signal and then becomes the program, so the process id is the program's own.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts `command` on the thread that lives as long as this process.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (answer, answered) = mpsc::channel();
    forker().send(Order { command, answer }).map_err(io::Error::other)?;
    answered.recv().map_err(io::Error::other)?
}

struct Order {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

fn forker() -> mpsc::Sender<Order> {
    static FORKER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    FORKER.get_or_init(start_forker).clone()
}

fn start_forker() -> mpsc::Sender<Order> {
    let (orders, inbox) = mpsc::channel::<Order>();
    std::thread::spawn(move || {
        for Order { mut command, answer } in inbox {
            let child = command.spawn();
            // Nobody waiting for the answer any more means that nobody owns the child.
            if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(child) {
                let _ = orphan.kill();
            }
        }
    });
    orders
}
