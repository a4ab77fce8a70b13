//! The pieces that WebSocket messages come in, as far as their headers tell (RFC 6455, 5.2): how long they are, and with
//! which of them a message is whole.
//!
//! Not here: the messages themselves, which the WebSocket library reads; it also ends the socket for what is wrong with them.

/// A socket's pieces, read along with their bytes.
#[derive(Debug, Default)]
pub struct Pieces {
    header: [u8; 14],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes still to come of the piece whose header is known.
    left: u64,
    /// These are no pieces.
    lost: bool,
    /// Bytes read of the piece that is not whole.
    piece: u64,
    /// Bytes of the whole pieces of a message whose last one is still to come.
    earlier: u64,
    /// Messages that are whole.
    whole: u64,
}

impl Pieces {
    /// Of bytes that begin nobody knows where.
    pub fn lost() -> Pieces {
        Pieces { lost: true, ..Pieces::default() }
    }

    /// Reads on.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            let taken = self.left.min(bytes.len() as u64).max(1);
            if self.left > 0 {
                self.left -= taken;
            } else {
                self.read_header(bytes[0]);
            }
            self.piece += taken;
            bytes = &bytes[taken as usize..];
            if self.have == 0 && self.left == 0 {
                self.end_piece();
            }
        }
        // What cannot be read is never whole.
        self.piece += bytes.len() as u64;
    }

    fn read_header(&mut self, byte: u8) {
        self.header[self.have] = byte;
        self.have += 1;
        self.lost = self.header[0] & 0x70 != 0 || !matches!(self.header[0] & 0x0f, 0..=2 | 8..=10);
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 || self.have < 2 + extended + mask {
            return;
        }
        let long = self.header[2..2 + extended].iter().fold(0, |left, byte| left << 8 | u64::from(*byte));
        self.left = if extended == 0 { u64::from(self.header[1] & 0x7f) } else { long };
        self.have = 0;
    }

    fn end_piece(&mut self) {
        let (is_last, is_control) = (self.header[0] & 0x80 != 0, self.header[0] & 0x08 != 0);
        if is_control {
            // A message of its own, perhaps between two pieces of another (5.4).
            self.whole += 1;
        } else if is_last {
            self.whole += 1;
            self.earlier = 0;
        } else {
            self.earlier += self.piece;
        }
        self.piece = 0;
    }

    /// Whether it is unknown where the next one begins.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Bytes that are sure to come of the piece that is not whole.
    pub fn left(&self) -> u64 {
        if self.lost { 0 } else { self.left }
    }

    /// Bytes read of the message that is not whole, headers included, and of a ping that is not whole between its pieces.
    pub fn open(&self) -> u64 {
        self.earlier + self.piece
    }

    /// Messages that are whole: texts, pings and all others.
    pub fn whole(&self) -> u64 {
        self.whole
    }
}

/// What a client's message of so many bytes takes at least: as one piece, which has a mask.
pub fn with_header(bytes: u64) -> u64 {
    let header = match bytes {
        0..=125 => 6,
        126..=0xffff => 8,
        _ => 14,
    };
    bytes + header
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A piece of so many bytes whose header begins with `first`; `mask`: as a client sends it.
    pub fn piece(first: u8, bytes: usize, mask: bool) -> Vec<u8> {
        let bit = if mask { 0x80 } else { 0 };
        let mut piece = vec![first];
        match bytes {
            0..=125 => piece.push(bit | bytes as u8),
            126..=0xffff => {
                piece.push(bit | 126);
                piece.extend((bytes as u16).to_be_bytes());
            }
            _ => {
                piece.push(bit | 127);
                piece.extend((bytes as u64).to_be_bytes());
            }
        }
        piece.extend(std::iter::repeat_n(0xff, if mask { 4 } else { 0 } + bytes));
        piece
    }

    const FIRST: [u8; 9] = [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a];

    proptest! {
        #[test]
        fn pieces_and_messages_are_known_wherever_reads_end(
            pieces in prop::collection::vec((prop::sample::select(FIRST.to_vec()), 0_usize..70_000, any::<bool>()), 1..4),
            reads in prop::collection::vec(1_usize..30_000, 1..20),
        ) {
            let pieces: Vec<Vec<u8>> = pieces.iter().map(|(first, bytes, mask)| piece(*first, *bytes, *mask)).collect();
            let (all, mut seen, mut at) = (pieces.concat(), Pieces::default(), 0);
            for read in reads.iter().cycle() {
                let to = (at + read).min(all.len());
                seen.see(&all[at..to]);
                at = to;
                let (mut end, mut left, mut open, mut whole) = (0, 0, 0, 0);
                for one in &pieces {
                    if end >= at {
                        break;
                    }
                    end += one.len();
                    match one[0] {
                        _ if end > at => {
                            left = end - at;
                            open += one.len() - left;
                        }
                        0..=2 => open += one.len(),
                        first => {
                            whole += 1;
                            if first < 0x88 {
                                open = 0;
                            }
                        }
                    }
                }
                // Never more than is still to come, and in the middle of a payload just that.
                prop_assert!(seen.left() == left as u64 || (seen.left() == 0 && seen.have > 0), "{:?} at {}", seen, at);
                prop_assert_eq!((seen.open(), seen.whole()), (open as u64, whole), "{:?} at {}", seen, at);
                if at == all.len() {
                    break;
                }
            }
            prop_assert!(!seen.is_lost() && seen.have == 0 && seen.left() == 0);
        }
    }

    #[test]
    fn what_is_no_message_is_waited_for_by_no_length_and_never_whole() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], &[0xf1, 0xfe, 0xff, 0xff], &[0x83, 0xff, 0, 0, 0, 0, 0, 9, 9, 9, 1, 2, 3, 4]]
        {
            let mut pieces = Pieces::default();
            pieces.see(bytes);
            pieces.see(&piece(0x81, 5, true));
            assert_eq!((pieces.is_lost(), pieces.left(), pieces.whole()), (true, 0, 0), "{bytes:x?}");
            assert_eq!(pieces.open(), bytes.len() as u64 + 11, "{bytes:x?}");
        }
    }
}
