//! Waits for ever: the first process of every pod, compiled alone and without a crate, because an image holds nothing else.

fn main() {
    loop {
        std::thread::park();
    }
}
