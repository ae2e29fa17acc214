//! What other threads tell a thread that waits for packets.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fd::{AsFd, BorrowedFd};

/// Tells the other end. May be used on any thread.
pub struct Outbox<T> {
    items: Sender<T>,
    bell: Arc<Bell>,
}

/// The end that is told.
pub struct Inbox<T> {
    items: Receiver<T>,
    bell: Arc<Bell>,
    woken: UdpSocket,
}

/// Wakes up whoever waits for packets.
struct Bell {
    /// A socket of its own, since that is what can be waited for together with others, on every system.
    wake: UdpSocket,
    /// Whether it was rung since the other end has looked.
    is_rung: AtomicBool,
}

/// Both ends.
///
/// # Errors
/// There are no more sockets.
pub fn pair<T>() -> io::Result<(Outbox<T>, Inbox<T>)> {
    let (items, receiver) = channel();
    let [wake, woken] = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    // So nobody else wakes it.
    wake.connect(woken.local_addr()?)?;
    woken.connect(wake.local_addr()?)?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let bell = Arc::new(Bell { wake, is_rung: AtomicBool::new(false) });
    Ok((Outbox { items, bell: Arc::clone(&bell) }, Inbox { items: receiver, bell, woken }))
}

impl<T> Outbox<T> {
    /// Tells the other end, unless it has ended.
    pub fn tell(&self, item: T) {
        // Without the other end there is nobody to tell.
        if self.items.send(item).is_ok() {
            self.ring();
        }
    }

    /// Wakes up the other end.
    pub fn ring(&self) {
        // It sees all that was told before it looks.
        if !self.bell.is_rung.swap(true, Ordering::AcqRel) {
            // When it finds no room, earlier ones wait there.
            let _woken = self.bell.wake.send(&[0]);
        }
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Inbox<T> {
    /// What was told next.
    pub fn take(&mut self) -> Option<T> {
        self.items.try_recv().ok()
    }

    /// Takes the wake-ups so far. To be called before what was told is taken.
    pub fn clear(&mut self) {
        while self.woken.recv(&mut [0]).is_ok() {}
        let _was_rung = self.bell.is_rung.swap(false, Ordering::AcqRel);
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_woken(inbox: &Inbox<u32>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(inbox.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(Duration::from_secs(5)).unwrap())).unwrap() == 1
    }

    #[test]
    fn whatever_is_told_from_any_thread_is_heard_and_wakes_up() {
        let (outbox, mut inbox) = pair().unwrap();
        let tellers: Vec<_> = (0..4)
            .map(|_| {
                let outbox = outbox.clone();
                std::thread::spawn(move || (0..2_000).for_each(|item| outbox.tell(item)))
            })
            .collect();
        let mut heard = 0;
        while heard < 8_000 {
            assert!(is_woken(&inbox), "{heard} heard, and nobody wakes up for the rest");
            inbox.clear();
            while inbox.take().is_some() {
                heard += 1;
            }
        }
        tellers.into_iter().for_each(|teller| teller.join().unwrap());
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn nobody_is_told_anything_once_the_other_end_is_gone() {
        let (outbox, inbox) = pair().unwrap();
        drop(inbox);
        outbox.tell(7);
    }
}
