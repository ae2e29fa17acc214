//! Several packets to several receivers in one system call.

use std::io::{self, IoSlice};
use std::net::{IpAddr, UdpSocket};

use quinn_proto::{EcnCodepoint, Transmit};
use rustix::net::{
    MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg,
    sockopt::{set_ip_tos, set_ipv6_tclass},
};

/// The mark of QUIC's packets (RFC 9000 §13.4), which the socket gives to those that bring none of their own.
const MARK: EcnCodepoint = EcnCodepoint::Ect0;

/// Sends many packets at once. What a packet needs beside its receiver can't be said in such a call: where it comes
/// from, if that is not where the socket's packets come from anyway, and another ECN mark than [`MARK`].
pub(super) struct Together {
    /// The one address of the socket; `None` if it has several.
    address: Option<IpAddr>,
    is_marked: bool,
}

impl Together {
    pub(super) fn new(socket: &UdpSocket) -> Self {
        let address = socket.local_addr().map(|address| address.ip()).ok();
        let marks_v4 = || set_ip_tos(socket, MARK as u8).is_ok();
        let is_marked = match address {
            Some(IpAddr::V4(_)) => marks_v4(),
            // It may send IPv4 packets, too, or nothing else.
            Some(IpAddr::V6(_)) => set_ipv6_tclass(socket, MARK as u32).is_ok() && marks_v4(),
            None => false,
        };
        Self { address: address.filter(|ip| !ip.is_unspecified()), is_marked }
    }

    /// How many packets, from the first on, may go in one call.
    pub(super) fn count(&self, packets: &[(Transmit, Vec<u8>)]) -> usize {
        packets.iter().take_while(|(transmit, _)| self.takes(transmit)).count()
    }

    fn takes(&self, transmit: &Transmit) -> bool {
        let is_one = transmit.segment_size.is_none_or(|segment| segment >= transmit.size);
        let is_from_here = transmit.src_ip.is_none_or(|ip| Some(ip) == self.address);
        is_one && is_from_here && self.is_marked && transmit.ecn == Some(MARK)
    }
}

/// Sends the packets, of which [`Together::count`] said that they may go; gives how many the kernel took.
///
/// # Errors
/// What is wrong with the first.
pub(super) fn send(socket: &UdpSocket, packets: &[(Transmit, Vec<u8>)]) -> io::Result<usize> {
    let contents: Vec<IoSlice<'_>> =
        packets.iter().map(|(transmit, bytes)| IoSlice::new(bytes.get(..transmit.size).unwrap_or_default())).collect();
    let to: Vec<SocketAddrAny> = packets.iter().map(|(transmit, _)| transmit.destination.into()).collect();
    let mut nothing: Vec<_> = packets.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let parts = contents.iter().zip(&to).zip(&mut nothing);
    let mut messages: Vec<_> = parts
        .map(|((contents, to), nothing)| MMsgHdr::new_with_addr(to, std::slice::from_ref(contents), nothing))
        .collect();
    Ok(sendmmsg(socket, &mut messages, SendFlags::empty())?)
}
