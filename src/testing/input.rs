//! Reads numbers, keys and values from the bytes of a fuzzer, from the front. Floor: testing. After
//! the last byte all reads return zero, so that each prefix of an input has a meaning.

/// The bytes that were not read yet.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(super) fn u16(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    pub(super) fn u32(&mut self) -> usize {
        self.u16() << 16 | self.u16()
    }

    /// Consumes and returns at most `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// A key of at most `max` bytes, of kinds that found bugs in page code: short keys that often
    /// collide, shared prefixes, tails of zeros, long keys.
    pub(super) fn key(&mut self, max: usize) -> Vec<u8> {
        let kind = self.byte();
        let mut key = match kind % 8 {
            0 => vec![self.byte()],
            1 => format!("user:{:08}", self.u16()).into_bytes(),
            2 => [b"a-prefix/that-most/keys-share/", self.few()].concat(),
            3 => [b"a-prefix/", self.few()].concat(),
            4 => {
                let (byte, len) = (self.byte(), self.u16());
                [&vec![byte; len % (max + 1)], self.few()].concat()
            }
            5 => vec![if kind & 8 == 0 { 0 } else { 0xff }; usize::from(kind >> 4)],
            6 => self.few().to_vec(),
            _ => {
                let len = usize::from(self.byte() % 64);
                self.take(len).to_vec()
            }
        };
        key.truncate(max);
        key
    }

    /// The common prefix of all keys of a page: often empty, otherwise short or long.
    pub(super) fn prefix(&mut self) -> Vec<u8> {
        let kind = self.byte();
        match kind % 4 {
            0 => Vec::new(),
            1 | 2 => self.take(usize::from(kind >> 2) % 8).to_vec(),
            _ => filled(kind, usize::from(kind >> 2)),
        }
    }

    /// A key that begins with a prefix.
    pub(super) fn key_with_prefix(&mut self, prefix: &[u8], max: usize) -> Vec<u8> {
        let mut key = [prefix, &self.key(max)].concat();
        key.truncate(max);
        key
    }

    fn few(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() % 8);
        self.take(len)
    }
}

/// A value that is determined by one byte and its length.
pub(super) fn filled(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte.wrapping_add((at >> 6) as u8)).collect()
}
