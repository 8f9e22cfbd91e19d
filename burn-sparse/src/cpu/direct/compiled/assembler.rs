//! The few instructions of x86-64 that compiled rows consist of, as bytes.
//!
//! Encodings: Intel, "Intel 64 and IA-32 architectures software developer's manual", volume 2, sections 2.1
//! (legacy), 2.3 (VEX) and 2.7 (EVEX). A test decodes what this writes with another program.

/// A general register, by the number of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reg {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
}

impl Reg {
    /// The three bits that lie beside the operation.
    fn low(self) -> u8 {
        self as u8 & 7
    }

    /// The fourth bit, which lies in a prefix.
    fn high(self) -> u8 {
        self as u8 >> 3
    }
}

/// A vector register of 512 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zmm(pub(super) u8);

/// Where a jump is to lead to, once that is known.
#[derive(Debug)]
#[must_use]
pub(super) struct Jump {
    /// Of its distance.
    at: usize,
}

/// Bytes of instructions.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    bytes: Vec<u8>,
}

/// An operation on vectors: opcode map, prefix and opcode.
#[derive(Clone, Copy)]
struct Op {
    map: u8,
    prefix: u8,
    code: u8,
}

const MOVE: Op = op(1, 0, 0x10);
const STORE: Op = op(1, 0, 0x11);
const ADD: Op = op(1, 0, 0x58);
const MAX: Op = op(1, 0, 0x5f);
const XOR: Op = op(1, 1, 0xef);
const BROADCAST: Op = op(2, 1, 0x18);
const MULTIPLY_ADD: Op = op(2, 1, 0xb8);

const fn op(map: u8, prefix: u8, code: u8) -> Op {
    Op { map, prefix, code }
}

/// Bytes of a vector.
const VECTOR: i32 = 64;
/// Bytes of an f32.
const FLOAT: i32 = 4;

impl Assembler {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Instructions that do nothing, up to a multiple of a cache line.
    pub(super) fn align(&mut self) {
        let len = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(len, 0x90);
    }

    fn quad(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// The prefix of an operation on vectors, and its opcode. `base` is the register of an address, or with
    /// `vector` the last operand.
    fn evex(&mut self, op: Op, reg: Zmm, second: Zmm, [base, vector]: [Option<u8>; 2], one: bool) {
        // Bits are inverted, but for the opcode map.
        let bit = |register: u8, at: u8| (!(register >> at) & 1) << 7;
        let (x, b) = match (base, vector) {
            (_, Some(vector)) => (bit(vector, 4), bit(vector, 3)),
            (base, None) => (0x80, bit(base.unwrap_or(0), 3)),
        };
        let (r, r2) = (bit(reg.0, 3), bit(reg.0, 4));
        self.bytes.extend_from_slice(&[
            0x62,
            r | x >> 1 | b >> 2 | r2 >> 3 | op.map,
            (!second.0 & 15) << 3 | 4 | op.prefix,
            // 512 bits; `one` value for all lanes.
            2 << 5 | u8::from(one) << 4 | bit(second.0, 4) >> 4,
            op.code,
        ]);
    }

    /// An operation whose last operand lies `offset` bytes from a register, in units of `unit` where that is
    /// shorter.
    fn at(
        &mut self,
        op: Op,
        [reg, second]: [Zmm; 2],
        base: Reg,
        offset: i32,
        (unit, one): (i32, bool),
    ) {
        self.evex(op, reg, second, [Some(base as u8), None], one);
        let fields = (reg.0 & 7) << 3 | base.low();
        let short = (offset % unit == 0).then_some(offset / unit);
        match short.and_then(|units| i8::try_from(units).ok()) {
            Some(0) => self.bytes.push(fields),
            Some(units) => self.bytes.extend_from_slice(&[0x40 | fields, units as u8]),
            None => {
                self.bytes.push(0x80 | fields);
                self.quad(offset);
            }
        }
    }

    fn registers(&mut self, op: Op, reg: Zmm, second: Zmm, third: Zmm) {
        self.evex(op, reg, second, [None, Some(third.0)], false);
        self.bytes.push(0xc0 | (reg.0 & 7) << 3 | third.0 & 7);
    }

    /// `to = memory[base + offset]`, a vector.
    pub(super) fn load(&mut self, to: Zmm, base: Reg, offset: i32) {
        self.at(MOVE, [to, Zmm(0)], base, offset, (VECTOR, false));
    }

    /// `memory[base] = from`, a vector.
    pub(super) fn store(&mut self, from: Zmm, base: Reg) {
        self.at(STORE, [from, Zmm(0)], base, 0, (VECTOR, false));
    }

    /// Every lane of `to = memory[base + offset]`, a number.
    pub(super) fn broadcast(&mut self, to: Zmm, base: Reg, offset: i32) {
        self.at(BROADCAST, [to, Zmm(0)], base, offset, (FLOAT, false));
    }

    /// `sum += vector * memory[base + offset]`, a number for all lanes.
    pub(super) fn multiply_add(&mut self, sum: Zmm, vector: Zmm, base: Reg, offset: i32) {
        self.at(MULTIPLY_ADD, [sum, vector], base, offset, (FLOAT, true));
    }

    /// `sum += memory[base]`, a vector.
    pub(super) fn add_vector(&mut self, sum: Zmm, base: Reg) {
        self.at(ADD, [sum, sum], base, 0, (VECTOR, false));
    }

    /// Every lane of `to = 0`.
    pub(super) fn zero(&mut self, to: Zmm) {
        self.registers(XOR, to, to, to);
    }

    /// `value = value > floor ? value : ...`: the larger, and `value` if one of both is no number or both are zero.
    pub(super) fn at_least(&mut self, value: Zmm, floor: Zmm) {
        self.registers(MAX, value, floor, value);
    }

    fn wide(&mut self, reg: u8, base: u8, code: u8) {
        self.bytes
            .extend_from_slice(&[0x48 | reg << 2 | base, code]);
    }

    /// `to = memory[base + offset]`, a word of 64 bits.
    pub(super) fn load_word(&mut self, to: Reg, base: Reg, offset: i8) {
        self.wide(to.high(), base.high(), 0x8b);
        let fields = 0x40 | to.low() << 3 | base.low();
        self.bytes.extend_from_slice(&[fields, offset as u8]);
    }

    /// `to = from`.
    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        self.wide(from.high(), to.high(), 0x89);
        self.bytes.push(0xc0 | from.low() << 3 | to.low());
    }

    /// `to += from`.
    pub(super) fn add(&mut self, to: Reg, from: Reg) {
        self.wide(from.high(), to.high(), 0x01);
        self.bytes.push(0xc0 | from.low() << 3 | to.low());
    }

    /// `to += value`.
    pub(super) fn add_number(&mut self, to: Reg, value: i32) {
        self.wide(0, to.high(), 0x81);
        self.bytes.push(0xc0 | to.low());
        self.quad(value);
    }

    /// Compares a register with zero.
    pub(super) fn test(&mut self, reg: Reg) {
        self.wide(reg.high(), reg.high(), 0x85);
        self.bytes.push(0xc0 | reg.low() << 3 | reg.low());
    }

    /// Compares `memory[base + offset]`, a word of 64 bits, with zero.
    pub(super) fn test_word(&mut self, base: Reg, offset: i8) {
        self.wide(0, base.high(), 0x83);
        let fields = 0x78 | base.low();
        self.bytes.extend_from_slice(&[fields, offset as u8, 0]);
    }

    /// A jump forward if the last comparison found a zero, to where [`land`](Self::land) will say.
    pub(super) fn jump_if_zero(&mut self) -> Jump {
        self.bytes.extend_from_slice(&[0x0f, 0x84]);
        let at = self.bytes.len();
        self.quad(0);
        Jump { at }
    }

    /// Lets a jump lead to here; distances count from its end.
    pub(super) fn land(&mut self, jump: Jump) {
        let distance = self.bytes.len() - (jump.at + 4);
        // Code of more than 2 GiB is refused.
        let distance = i32::try_from(distance).unwrap_or(i32::MAX);
        self.bytes[jump.at..jump.at + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// Ends a function that used vector registers.
    pub(super) fn leave(&mut self) {
        // vzeroupper, ret
        self.bytes.extend_from_slice(&[0xc5, 0xf8, 0x77, 0xc3]);
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter, Mnemonic};

    use super::*;

    const REGS: [(Reg, &str); 8] = [
        (Reg::Rax, "rax"),
        (Reg::Rcx, "rcx"),
        (Reg::Rdx, "rdx"),
        (Reg::Rsi, "rsi"),
        (Reg::Rdi, "rdi"),
        (Reg::R8, "r8"),
        (Reg::R9, "r9"),
        (Reg::R10, "r10"),
    ];

    fn decoded(bytes: &[u8]) -> Vec<String> {
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_space_after_operand_separator(false);
        options.set_branch_leading_zeros(false);
        Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE)
            .into_iter()
            .map(|instruction| {
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                text
            })
            .collect()
    }

    fn check(expected: &str, write: impl Fn(&mut Assembler)) {
        let mut assembler = Assembler::default();
        write(&mut assembler);
        assert_eq!(decoded(assembler.bytes()), [expected]);
    }

    /// An offset as the decoder writes it.
    fn offset(offset: i32) -> String {
        let sign = if offset < 0 { '-' } else { '+' };
        match offset.unsigned_abs() {
            0 => String::new(),
            small @ 1..=9 => format!("{sign}{small}"),
            large => format!("{sign}{large:#X}").replace("0X", "0x"),
        }
    }

    #[test]
    fn another_decoder_reads_the_instructions_on_vectors() {
        for a in 0..32 {
            let b = (a * 7 + 5) % 32;
            let (x, y) = (Zmm(a), Zmm(b));
            check(&format!("vpxord zmm{a},zmm{a},zmm{a}"), |s| s.zero(x));
            check(&format!("vmaxps zmm{a},zmm{b},zmm{a}"), |s| {
                s.at_least(x, y)
            });
            for (base, name) in REGS {
                check(&format!("vmovups [{name}],zmm{a}"), |s| s.store(x, base));
                check(&format!("vaddps zmm{a},zmm{a},[{name}]"), |s| {
                    s.add_vector(x, base);
                });
                for at in [0, 64, -64, 4, -4, 508, -512, 8128, -8192, 8192, 1 << 30, 60] {
                    let place = format!("[{name}{}]", offset(at));
                    check(&format!("vmovups zmm{a},{place}"), |s| s.load(x, base, at));
                    check(&format!("vbroadcastss zmm{a},{place}"), |s| {
                        s.broadcast(x, base, at);
                    });
                    let expected = format!("vfmadd231ps zmm{a},zmm{b},{place}{{1to16}}");
                    check(&expected, |s| s.multiply_add(x, y, base, at));
                }
            }
        }
    }

    #[test]
    fn another_decoder_reads_the_instructions_on_words() {
        for (a, one) in REGS {
            check(&format!("test {one},{one}"), |s| s.test(a));
            check(&format!("cmp qword ptr [{one}+0x40],0"), |s| {
                s.test_word(a, 64);
            });
            check(&format!("add {one},0x12345678"), |s| {
                s.add_number(a, 0x1234_5678);
            });
            for (b, other) in REGS {
                check(&format!("mov {one},{other}"), |s| s.copy(a, b));
                check(&format!("add {one},{other}"), |s| s.add(a, b));
                check(&format!("mov {one},[{other}+0x28]"), |s| {
                    s.load_word(a, b, 40)
                });
            }
        }
    }

    #[test]
    fn jumps_lead_where_they_are_told() {
        let mut s = Assembler::default();
        let forward = s.jump_if_zero();
        s.leave();
        s.land(forward);
        let skip = s.jump_if_zero();
        s.align();
        s.land(skip);
        let code = Decoder::with_ip(64, s.bytes(), 0, DecoderOptions::NONE);
        let code: Vec<_> = code.into_iter().collect();
        let targets = [0, 3].map(|at| code[at].near_branch_target());
        assert_eq!(targets, [10, 64]);
        let names: Vec<_> = code[..4].iter().map(|i| i.mnemonic()).collect();
        use Mnemonic::{Je, Nop, Ret, Vzeroupper};
        assert_eq!(names, [Je, Vzeroupper, Ret, Je]);
        assert!(code[4..].iter().all(|i| i.mnemonic() == Nop));
        assert_eq!(s.len(), 64);
    }
}
