//! What a talker's seals say of its frames, at one listener.

use std::time::Instant;

use super::{BACK, ChainAt, FAR_EVERY, Findings, MAX_SKIP, Opener, Vouched, joined, take_turn};
use crate::epoch::schedule::{self, SegmentKey, SenderChainKey};
use crate::seal::{SealBody, SealHead};
use crate::sframe::frame::{Frame, PLAINTEXT_LEN};
use crate::sframe::record::Record;
use crate::sframe::sender::advance;
use crate::sframe::{KeyName, SegmentNumber, aad, encode_header};

impl Opener {
    /// SK_i of a segment whose seal has come; `None` when it lies too far away.
    pub fn segment_key(&mut self, segment: SegmentNumber, now: Instant) -> Option<SegmentKey> {
        if let Some(record) = self.records.iter().find(|record| record.segment == segment) {
            return Some(record.key.duplicate());
        }
        let number = u32::from(segment.0);
        let skip = number.checked_sub(self.base.segment)?;
        if u64::from(skip) > MAX_SKIP && !take_turn(&mut self.last_far, now, FAR_EVERY) {
            return None;
        }
        let mut chain = self.base.duplicate();
        chain.go_to(number);
        Some(schedule::segment_key(&chain.key))
    }

    /// The verified seal of a segment, if it has come lately.
    pub fn vouched(&self, segment: SegmentNumber) -> Option<(&SealHead, &SealBody)> {
        let record = self.records.iter().find(|record| record.segment == segment)?;
        record.vouched.as_ref().map(|seal| (&seal.head, &seal.body))
    }

    /// Takes a seal that was verified. What waited and is listed comes from [`Opener::next_vouched`].
    pub fn vouch(&mut self, name: KeyName, head: SealHead, body: SealBody, now: Instant) {
        let segment = u32::from(name.segment.0);
        if segment >= self.anchor {
            self.anchor = segment + 1;
        }
        if self.place(segment).is_none() && self.is_trusted(segment) {
            let mut chain = self.base.duplicate();
            chain.go_to(segment);
            let (key, frames, _) = advance(name, &chain.key);
            self.insert(Record::new(name.segment, key, frames));
        }
        self.base.go_to(self.anchor.saturating_sub(BACK));
        if let Some(place) = self.place(segment) {
            self.injected |= self.records[place].vouch(head, body, now);
        }
        self.prune();
    }

    /// The next frame that waited for its seal and is listed, the oldest first.
    pub fn next_vouched<'p>(&mut self, plaintext: &'p mut [u8; PLAINTEXT_LEN]) -> Option<Vouched<'p>> {
        loop {
            let ready = self.records.iter_mut().filter(|record| record.has_listed());
            let record = ready.min_by_key(|record| record.segment)?;
            let name = KeyName { index: self.index, epoch: self.epoch, segment: record.segment };
            let (number, body, tag) = record.next_listed()?;
            let (ctr, header) = encode_header(name, number);
            plaintext.copy_from_slice(&body);
            // It has opened before; were it otherwise, the next one's turn would come.
            let opened = record.frames.open_in_place(ctr, &aad(&header, &self.meeting, self.index), plaintext, &tag);
            if opened.is_ok() && Frame::read(plaintext).is_some() {
                let bytes = joined(&body, &tag);
                return Frame::read(plaintext).map(|frame| Vouched { name, number, bytes, frame });
            }
        }
    }

    /// Whether a frame waits whose seal has come.
    pub fn has_vouched(&self) -> bool {
        self.records.iter().any(Record::has_listed)
    }

    /// How many frames wait for a seal.
    pub fn waiting(&self) -> usize {
        self.records.iter().map(Record::waiting).sum()
    }

    /// Nothing of this epoch is opened any more; its seals may still come.
    pub fn close(&mut self) {
        let erased = || ChainAt { segment: u32::MAX, key: SenderChainKey::new([0; 32]) };
        (self.base, self.ahead) = (erased(), erased());
        self.closed = true;
    }

    /// When the next segment must have its seal.
    pub fn seal_due(&self) -> Option<Instant> {
        self.records.iter().filter_map(Record::seal_due).min()
    }

    /// Whether no seal is awaited, in time or late.
    pub fn is_settled(&self) -> bool {
        self.seal_due().is_none() && self.waiting() == 0
    }

    /// Time has passed.
    pub fn judge(&mut self, now: Instant) {
        for record in &mut self.records {
            self.missed = self.missed.max(record.judge(now));
        }
    }

    /// Whether frames have opened that no seal lists, and whether segments have no seal, since this was last asked.
    pub fn take_findings(&mut self) -> Findings {
        let found = Findings { injected: self.injected, missed: self.missed };
        (self.injected, self.missed) = (false, None);
        found
    }
}
