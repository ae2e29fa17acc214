//! One connection on its shard: QUIC, its control stream, and who hears what comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use conclave_protocol::wire::relay::SEALED;
use conclave_relay::driver::control::{Control, Read};
use conclave_relay::media::{self, ClientPath, Item, Quiet, Secrets};
use conclave_relay::transport;
use quinn_proto::{Dir, Event, StreamEvent, Transmit, VarInt};
use tokio::sync::{mpsc, oneshot};

use super::connection::{Connection, Dial, Dialed, Seen, Valve};
use crate::meter::Meter;
use crate::room::{SharedListener, Stage, count};
use crate::sync::lock;

/// See the module.
pub(super) struct Caller {
    /// Which connection of all that have had its place.
    pub(super) number: u64,
    pub(super) quic: quinn_proto::Connection,
    pub(super) socket: usize,
    pub(super) is_dirty: bool,
    control: Option<Control>,
    /// Messages for which the control stream had no room yet. A host of many lets in dozens at once.
    unsent: VecDeque<Bytes>,
    /// Not to be read before.
    read_again: Option<Instant>,
    /// Its media packets, from the end of the handshake on.
    media: Option<ClientPath>,
    quiet: Quiet,
    listener: SharedListener,
    valve: Arc<Valve>,
    seen: Arc<Seen>,
    incoming: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// What is to be told once the handshake is over.
    dialing: Option<(oneshot::Sender<Result<Dialed, String>>, Connection)>,
    finishing: Option<oneshot::Sender<()>>,
}

impl Caller {
    pub(super) fn new(
        now: Instant,
        quic: quinn_proto::Connection,
        socket: usize,
        connection: Connection,
        dial: Dial,
        seen: Arc<Seen>,
    ) -> Self {
        Self {
            number: connection.number(),
            quic,
            socket,
            is_dirty: false,
            control: None,
            unsent: VecDeque::new(),
            read_again: None,
            media: None,
            quiet: Quiet::new(now),
            listener: dial.listener,
            valve: dial.valve,
            seen,
            incoming: Some(dial.control),
            dialing: Some((dial.done, connection)),
            finishing: None,
        }
    }

    /// A packet came; whether it is read.
    pub(super) fn takes_packet(&self) -> bool {
        self.seen.packet();
        !self.valve.is_closed()
    }

    /// When it is to be looked at, whatever happens before.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let ask_at = self.media.as_ref().map(ClientPath::ask_at);
        [self.quic.poll_timeout(), self.read_again, ask_at, Some(self.quiet.look_at())].into_iter().flatten().min()
    }

    /// Its time has come.
    pub(super) fn on_time(&mut self, now: Instant, stage: &Stage) {
        if self.quic.poll_timeout().is_some_and(|due| due <= now) {
            self.quic.handle_timeout(now);
        }
        if self.read_again.take_if(|at| *at <= now).is_some() {
            self.read_control(now, stage);
        }
        if self.quiet.look(now, || self.seen.packets()) {
            self.ask_quic();
        }
    }

    /// Has the relay acknowledge an empty datagram (`docs/protocol.md` §6.5).
    fn ask_quic(&mut self) {
        // Before the connection is there it takes none.
        let _sent = self.quic.datagrams().send(Bytes::new(), true);
    }

    /// Takes in what has come.
    pub(super) fn hear(&mut self, now: Instant, stage: &Stage, meter: &mut Meter) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
                Event::Connected => self.on_connected(now),
                Event::ConnectionLost { reason } => self.on_gone(&reason.to_string()),
                Event::DatagramReceived => self.read_datagrams(stage, meter),
                Event::Stream(StreamEvent::Readable { .. }) => self.read_control(now, stage),
                Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Stopped { .. }) => self.on_finished(now),
                // What waits is written whenever the connection is looked at.
                Event::Stream(_) => {}
            }
        }
        self.write_control();
    }

    fn on_connected(&mut self, now: Instant) {
        let Some((done, connection)) = self.dialing.take() else { return };
        let opened = self.open(now).map(|exporter| Dialed { connection, exporter });
        if let Err(why) = &opened {
            self.close(now, why);
        }
        if done.send(opened).is_err() {
            self.close(now, "nobody waits for it any more");
        }
    }

    /// What names it in media packets, once that is known.
    pub(super) fn media_id(&self) -> Option<u64> {
        self.media.as_ref().map(ClientPath::id)
    }

    fn open(&mut self, now: Instant) -> Result<[u8; 32], String> {
        if self.quic.datagrams().max_size().is_none() {
            return Err("the relay takes no datagrams".to_owned());
        }
        let stream = self.quic.streams().open(Dir::Bi).ok_or("the relay takes no control stream")?;
        self.control = Some(Control::new(stream));
        self.media = Secrets::of_driven(&self.quic).and_then(|secrets| ClientPath::new(now, &secrets));
        transport::exporter_of(&self.quic).ok_or_else(|| "TLS gives no exporter".to_owned())
    }

    fn on_gone(&mut self, why: &str) {
        self.seen.gone(why.to_owned());
        self.incoming = None;
        self.finishing = None;
        if let Some((done, _)) = self.dialing.take() {
            // Who has stopped waiting needs no reason.
            let _told = done.send(Err(format!("connection failed: {why}")));
        }
    }

    fn read_datagrams(&mut self, stage: &Stage, meter: &mut Meter) {
        let now = stage.clock.now();
        let mut listener = lock(&self.listener);
        while let Some(datagram) = self.quic.datagrams().recv() {
            self.seen.frame();
            listener.hear(now, &datagram, meter);
        }
    }

    fn read_control(&mut self, now: Instant, stage: &Stage) {
        let Some(control) = &mut self.control else { return };
        loop {
            match control.read(&mut self.quic, now) {
                Read::Message(message) => take_message(stage, self.incoming.as_ref(), &message),
                Read::Nothing => return,
                Read::NotBefore(at) => return self.read_again = Some(at),
                Read::End(_) => return self.incoming = None,
            }
        }
    }

    /// Sends a control message.
    pub(super) fn send_control(&mut self, message: Bytes) {
        self.unsent.push_back(message);
    }

    /// Sends a datagram: by the media packet that is then in the empty `buffer`, or in QUIC, where the oldest gives way if
    /// there is no room.
    pub(super) fn send_datagram(&mut self, now: Instant, datagram: Bytes, buffer: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(media) = self.media.as_mut().filter(|media| media.carries(now)) {
            return media.seal(now, &datagram, buffer).then(|| self.direct(buffer));
        }
        // Fails only when the connection is about to go.
        let _sent = self.quic.datagrams().send(datagram, true);
        None
    }

    /// The question whether media packets come through, in the empty `buffer`, if it is time.
    pub(super) fn ask(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let media = self.media.as_mut()?;
        let asks = media.ask(now, buffer);
        if media.asks_quic() {
            self.ask_quic();
        }
        asks.then(|| self.direct(buffer))
    }

    fn direct(&self, packet: &[u8]) -> Transmit {
        media::transmit(self.quic.remote_address(), None, packet)
    }

    /// Opens a media packet; `false` if it is none of this connection's.
    pub(super) fn open_media(&mut self, now: Instant, packet: &mut BytesMut) -> bool {
        self.media.as_mut().is_some_and(|media| media.open(now, packet).is_some())
    }

    /// Hears what is in an opened media packet.
    pub(super) fn hear_media(&mut self, stage: &Stage, packet: &[u8], meter: &mut Meter) {
        let now = stage.clock.now();
        let mut listener = lock(&self.listener);
        for item in media::items(packet) {
            match item {
                Item::Datagram(datagram) => {
                    self.seen.frame();
                    listener.hear(now, datagram, meter);
                }
                Item::Message(message) => take_message(stage, self.incoming.as_ref(), message),
                Item::Part(part) => {
                    if let Some(message) = self.media.as_mut().and_then(|media| media.join(part)) {
                        take_message(stage, self.incoming.as_ref(), &message);
                    }
                }
                // A member is sent none.
                Item::Receipt(_) => {}
            }
        }
    }

    /// Closes once all is written and acknowledged.
    pub(super) fn finish(&mut self, done: oneshot::Sender<()>) {
        self.finishing = Some(done);
        self.write_control();
    }

    fn write_control(&mut self) {
        let Some(control) = &mut self.control else { return };
        let mut is_stopped = false;
        while !is_stopped && self.unsent.pop_front_if(|message| control.send(message.clone()).is_ok()).is_some() {
            is_stopped = control.write(&mut self.quic, usize::MAX).is_err();
        }
        is_stopped |= control.write(&mut self.quic, usize::MAX).is_err();
        if self.finishing.is_some() && self.unsent.is_empty() {
            is_stopped |= control.finish(&mut self.quic).is_err();
        }
        if is_stopped {
            self.finishing = None;
        }
    }

    fn on_finished(&mut self, now: Instant) {
        if let Some(done) = self.finishing.take() {
            // It waits for a while only.
            let _told = done.send(());
            self.close(now, "finished");
        }
    }

    /// Closes at once.
    pub(super) fn close(&mut self, now: Instant, why: &str) {
        self.quic.close(now, VarInt::from_u32(0), Bytes::new());
        self.on_gone(why);
    }
}

/// A control message has come, on whatever way.
fn take_message(stage: &Stage, incoming: Option<&mpsc::UnboundedSender<Vec<u8>>>, message: &[u8]) {
    // To check a thousand listeners' seals would take more cores than the relay.
    if message.first() == Some(&SEALED) {
        return count(&stage.tally.seals);
    }
    count(&stage.tally.control);
    // Who has hung up wants none.
    let _heard = incoming.map(|incoming| incoming.send(message.to_vec()));
}
