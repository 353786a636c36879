//! Random changes to images while a network is trained, from our own stream.

use hospes_protocol::plan::Augment;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;

use crate::component::Pixels;

/// What is changed, and the stream that it is drawn from.
pub(super) struct Changes {
    what: Augment,
    stream: ChaCha20Rng,
}

/// One draw for one row.
struct Change {
    flip: bool,
    /// Rows and columns that the image moves by.
    shift: [i64; 2],
    /// Sine and cosine of the turn, if there is one.
    turn: Option<(f64, f64)>,
}

impl Changes {
    pub(super) fn new(what: &Augment, stream: ChaCha20Rng) -> Self {
        Self { what: what.clone(), stream }
    }

    /// Writes a row's image, changed, with values from 0 to 1.
    pub(super) fn apply(&mut self, pixels: &Pixels, row: usize, to: &mut [f32]) {
        let change = self.draw();
        let [channels, height, width] = pixels.shape;
        let plane = height * width;
        for (from, to) in pixels.row(row).chunks(plane).zip(to.chunks_mut(plane)).take(channels) {
            change.apply(from, to, height, width);
        }
    }

    /// A row takes the same draws whatever they come to.
    fn draw(&mut self) -> Change {
        let flip = self.what.flip && self.stream.next_u32() & 1 == 1;
        let shift = if self.what.shift > 0 { [self.within(), self.within()] } else { [0, 0] };
        let turn = (self.what.rotate > 0.0).then(|| {
            let part = f64::from(self.stream.next_u32()) / f64::from(u32::MAX);
            (self.what.rotate * (2.0 * part - 1.0)).to_radians().sin_cos()
        });
        Change { flip, shift, turn }
    }

    /// A whole number from −shift to shift. 2⁶⁴ is so much more than 2·shift + 1 that the remainder's bias is below 2⁻³⁰.
    fn within(&mut self) -> i64 {
        let most = u64::from(self.what.shift);
        #[allow(clippy::cast_possible_wrap)]
        let drawn = (self.stream.next_u64() % (2 * most + 1)) as i64;
        drawn - i64::from(self.what.shift)
    }
}

impl Change {
    /// For each pixel of the result: where it comes from. What comes from outside is 0.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)]
    fn apply(&self, from: &[u8], to: &mut [f32], height: usize, width: usize) {
        let at = |r: i64, c: i64| -> f32 {
            if !(0..height as i64).contains(&r) || !(0..width as i64).contains(&c) {
                return 0.0;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let index = r as usize * width + c as usize;
            f32::from(from[index]) / 255.0
        };
        let (middle_r, middle_c) = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
        for r in 0..height {
            for c in 0..width {
                let mirrored = if self.flip { width - 1 - c } else { c };
                let (row, column) = (r as i64 - self.shift[0], mirrored as i64 - self.shift[1]);
                to[r * width + c] = match self.turn {
                    None => at(row, column),
                    Some((sine, cosine)) => {
                        let (y, x) = (row as f64 - middle_r, column as f64 - middle_c);
                        bilinear(&at, middle_r + y * cosine - x * sine, middle_c + y * sine + x * cosine)
                    }
                };
            }
        }
    }
}

/// The mean of the four pixels around a place, by how near they are.
#[allow(clippy::cast_possible_truncation)]
fn bilinear(at: &impl Fn(i64, i64) -> f32, r: f64, c: f64) -> f32 {
    let (top, left) = (r.floor(), c.floor());
    let (down, right) = ((r - top) as f32, (c - left) as f32);
    let (r, c) = (top as i64, left as i64);
    let row = |r: i64| at(r, c) * (1.0 - right) + at(r, c + 1) * right;
    row(r) * (1.0 - down) + row(r + 1) * down
}
