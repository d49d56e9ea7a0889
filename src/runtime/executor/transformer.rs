//! SAM's two-way transformer over features and class tokens.
//!
//! A layer goes in four passes, split over the picture's tokens, over images, or over heads: the tokens look at
//! themselves and ask, while the picture prepares what they will see; each head looks; the tokens take it in and show
//! themselves; the picture looks at them.

use super::layers::{Dense, Norm, sum};
use super::room::{Cut, Head, Room, Rooms, Shared, span, take};
use crate::kernels::memory::Buffer;
use crate::kernels::packed::{Number, Rows, Start, product};
use crate::kernels::softmax::softmax_rows;
use crate::model::transformer::{TokenAttention, TwoWayBlock, TwoWayTransformer};
use candle_core::Result;

/// Projections of an attention between two sets of tokens.
#[derive(Debug)]
struct Projections<N> {
    query: Dense<N>,
    key: Dense<N>,
    value: Dense<N>,
    out: Dense<N>,
    heads: usize,
}

impl<N: Number> Projections<N> {
    fn new(attention: &TokenAttention) -> Result<Self> {
        Ok(Self {
            query: Dense::new(&attention.q_proj)?,
            key: Dense::new(&attention.k_proj)?,
            value: Dense::new(&attention.v_proj)?,
            out: Dense::new(&attention.out_proj)?,
            heads: attention.heads,
        })
    }

    fn inner(&self) -> usize {
        self.query.outputs()
    }

    fn head_width(&self) -> usize {
        self.inner() / self.heads
    }

    fn bytes(&self) -> usize {
        self.query.bytes() + self.key.bytes() + self.value.bytes() + self.out.bytes()
    }
}

#[derive(Debug)]
struct Layer<N> {
    own: Projections<N>,
    norm_1: Norm,
    to_picture: Projections<N>,
    norm_2: Norm,
    mlp: [Dense<N>; 2],
    norm_3: Norm,
    to_tokens: Projections<N>,
    norm_4: Norm,
    first: bool,
}

/// The transformer.
#[derive(Debug)]
pub(super) struct Transformer<N> {
    layers: Vec<Layer<N>>,
    last: Projections<N>,
    norm_last: Norm,
    width: usize,
}

/// Buffers of the transformer.
#[derive(Debug)]
pub(super) struct Exchange<N> {
    /// What the tokens see of the picture, `[images, tokens of the picture, inner]` each.
    keys: Buffer<f32>,
    values: Buffer<f32>,
    /// What the picture asks of the tokens, likewise.
    queries: Buffer<f32>,
    /// `[images, tokens, inner]`: what the tokens ask of the picture, then what they saw.
    asked: Buffer<f32>,
    /// `[images, heads]`: what the picture sees of the tokens.
    shown: Vec<Head<N>>,
}

impl<N> Default for Exchange<N> {
    fn default() -> Self {
        Self {
            keys: Buffer::default(),
            values: Buffer::default(),
            queries: Buffer::default(),
            asked: Buffer::default(),
            shown: Vec::new(),
        }
    }
}

impl<N: Number> Exchange<N> {
    pub(super) fn bytes(&self) -> usize {
        let floats = [&self.keys, &self.values, &self.queries, &self.asked];
        let floats: usize = floats.iter().map(|buffer| size_of_val(buffer.as_slice())).sum();
        floats + self.shown.iter().map(Head::bytes).sum::<usize>()
    }
}

/// Both sides, for some images.
#[derive(Debug)]
pub(super) struct Sides<'a> {
    /// `[images, tokens, width]`
    pub(super) tokens: &'a mut [f32],
    /// `[tokens, width]`
    pub(super) token_positions: &'a [f32],
    /// `[images, tokens of the picture, width]`
    pub(super) picture: &'a mut [f32],
    /// `[tokens of the picture, width]`
    pub(super) picture_positions: &'a [f32],
}

impl Sides<'_> {
    fn images(&self) -> usize {
        self.picture.len() / self.picture_positions.len()
    }
}

impl<N: Number> Transformer<N> {
    pub(super) fn new(transformer: &TwoWayTransformer) -> Result<Self> {
        let last = Projections::new(&transformer.final_attn_token_to_image)?;
        Ok(Self {
            layers: transformer.layers.iter().map(Layer::new).collect::<Result<_>>()?,
            width: last.out.outputs(),
            last,
            norm_last: Norm::new(&transformer.norm_final_attn)?,
        })
    }

    /// Takes both sides of every image through all layers, in place.
    pub(super) fn run(
        &self,
        rooms: &Rooms<N>,
        exchange: &mut Exchange<N>,
        sides: &mut Sides<'_>,
    ) -> Result<()> {
        for layer in &self.layers {
            self.ask(rooms, exchange, sides, Some(layer))?;
            self.look(rooms, exchange, sides, &layer.to_picture)?;
            self.take_in(rooms, exchange, sides, Some(layer))?;
            self.look_back(rooms, exchange, sides, layer)?;
        }
        self.ask(rooms, exchange, sides, None)?;
        self.look(rooms, exchange, sides, &self.last)?;
        self.take_in(rooms, exchange, sides, None)
    }

    /// Side by side: the tokens look at themselves and ask the picture; keys and values of the picture for the tokens,
    /// and its queries to them.
    fn ask(
        &self,
        rooms: &Rooms<N>,
        exchange: &mut Exchange<N>,
        sides: &mut Sides<'_>,
        layer: Option<&Layer<N>>,
    ) -> Result<()> {
        let seen = layer.map_or(&self.last, |layer| &layer.to_picture);
        let asking = layer.map(|layer| &layer.to_tokens.query);
        let (width, inner, images) = (self.width, seen.inner(), sides.images());
        let (positions, count) = (sides.token_positions, sides.token_positions.len());
        let rows = sides.picture_positions.len() / width;
        let asked_rows = count / width * inner;
        let asked_width = asking.map_or(0, Dense::outputs);
        let cut = Cut::new(rows, images, 1);
        let keys = Shared::new(take(&mut exchange.keys, images * rows * inner));
        let values = Shared::new(take(&mut exchange.values, images * rows * inner));
        let queries = Shared::new(take(&mut exchange.queries, images * rows * asked_width));
        let asked = Shared::new(take(&mut exchange.asked, images * asked_rows));
        let tokens = Shared::new(sides.tokens);
        let picture = &*sides.picture;
        rooms.run(images + cut.pieces() * images, |index, room| {
            if index < images {
                // SAFETY: each of these tasks has an image of its own, in both buffers.
                let (tokens, asked) = unsafe {
                    let tokens = tokens.slice(index * count..(index + 1) * count)?;
                    (tokens, asked.slice(index * asked_rows..(index + 1) * asked_rows)?)
                };
                if let Some(layer) = layer {
                    layer.look_at_themselves(tokens, positions, room)?;
                }
                let placed = take(&mut room.floats[0], count);
                sum(tokens, positions, placed);
                return seen.query.run(N::of_all(placed, &mut room.numbers[0]), asked);
            }
            let (image, piece) = cut.piece(index - images);
            let x = &picture[span(image, rows, &piece, width)];
            let Room {
                floats: [placed, ..],
                numbers: [narrow, plain, ..],
                ..
            } = room;
            let placed = take(placed, x.len());
            sum(x, &sides.picture_positions[span(0, rows, &piece, width)], placed);
            let to = span(image, rows, &piece, inner);
            // SAFETY: each of these tasks has rows of its own, in all three buffers.
            let (keys, values, queries) = unsafe {
                let queries = queries.slice(span(image, rows, &piece, asked_width))?;
                (keys.slice(to.clone())?, values.slice(to)?, queries)
            };
            let placed = N::of_all(placed, narrow);
            seen.key.run(placed, keys)?;
            if let Some(asking) = asking {
                asking.run(placed, queries)?;
            }
            seen.value.run(N::of_all(x, plain), values)
        })
    }

    /// Every head of every image's tokens looks at the picture: what was asked becomes what was seen.
    fn look(
        &self,
        rooms: &Rooms<N>,
        exchange: &mut Exchange<N>,
        sides: &Sides<'_>,
        seen: &Projections<N>,
    ) -> Result<()> {
        let (inner, heads, head_width, images) =
            (seen.inner(), seen.heads, seen.head_width(), sides.images());
        let rows = sides.picture_positions.len() / self.width;
        let tokens = sides.token_positions.len() / self.width;
        let (keys, values) = (&exchange.keys, &exchange.values);
        let asked = Shared::new(&mut exchange.asked);
        rooms.run(images * heads, |index, room| {
            let (image, first) = (index / heads, index % heads * head_width);
            let Room {
                floats: [scores, seen, ..],
                numbers: [queries, weights, narrow],
                head,
                ..
            } = room;
            let of_image = image * rows * inner..(image + 1) * rows * inner;
            let (keys, values) = (&keys[of_image.clone()], &values[of_image]);
            head.pack(keys, values, inner, (first, head_width), narrow)?;
            let queries = take(queries, tokens * head_width);
            let part = |token: usize| {
                let at = (image * tokens + token) * inner + first;
                // SAFETY: each task has a head's channels of an image's tokens of its own, one token at a time.
                unsafe { asked.slice(at..at + head_width) }
            };
            for (token, to) in queries.chunks_exact_mut(head_width).enumerate() {
                N::narrow(part(token)?, to);
            }
            let seen = take(seen, tokens * head_width);
            let queries = Rows::new(queries, tokens, head_width);
            attend(queries, tokens, head, (seen, head_width), (scores, weights))?;
            for (token, seen) in seen.chunks_exact(head_width).enumerate() {
                part(token)?.copy_from_slice(seen);
            }
            Ok(())
        })
    }

    /// The tokens take in what they have seen; in a layer their MLP follows, and what they show to the picture.
    fn take_in(
        &self,
        rooms: &Rooms<N>,
        exchange: &mut Exchange<N>,
        sides: &mut Sides<'_>,
        layer: Option<&Layer<N>>,
    ) -> Result<()> {
        let (positions, count, images) = (sides.token_positions, sides.token_positions.len(), sides.images());
        let seen = layer.map_or(&self.last, |layer| &layer.to_picture);
        let norm = layer.map_or(&self.norm_last, |layer| &layer.norm_2);
        let rows = count / self.width * seen.inner();
        let heads = layer.map_or(0, |layer| layer.to_tokens.heads);
        while exchange.shown.len() < images * heads {
            exchange.shown.push(Head::new()?);
        }
        let asked = &exchange.asked;
        let shown = Shared::new(&mut exchange.shown);
        let tokens = Shared::new(sides.tokens);
        rooms.run(images, |image, room| {
            // SAFETY: each task has an image of its own, in both buffers.
            let (tokens, shown) = unsafe {
                let tokens = tokens.slice(image * count..(image + 1) * count)?;
                (tokens, shown.slice(image * heads..(image + 1) * heads)?)
            };
            let saw = &asked[image * rows..(image + 1) * rows];
            seen.out.add(N::of_all(saw, &mut room.numbers[0]), tokens)?;
            norm.in_place(tokens, take(&mut room.floats[0], count));
            match layer {
                Some(layer) => layer.show(tokens, positions, room, shown),
                None => Ok(()),
            }
        })
    }

    /// The picture looks at the tokens.
    fn look_back(
        &self,
        rooms: &Rooms<N>,
        exchange: &Exchange<N>,
        sides: &mut Sides<'_>,
        layer: &Layer<N>,
    ) -> Result<()> {
        let asking = &layer.to_tokens;
        let (inner, heads, head_width) = (asking.inner(), asking.heads, asking.head_width());
        let (width, images) = (self.width, sides.images());
        let rows = sides.picture_positions.len() / width;
        let cut = Cut::new(rows, images, 1);
        let picture = Shared::new(sides.picture);
        rooms.run(cut.pieces() * images, |index, room| {
            let (image, piece) = cut.piece(index);
            // SAFETY: each task has rows of its own.
            let x = unsafe { picture.slice(span(image, rows, &piece, width))? };
            let Room {
                floats: [scores, seen, normed, ..],
                numbers: [queries, weights, narrow],
                ..
            } = room;
            let queries = N::of_all(&exchange.queries[span(image, rows, &piece, inner)], queries);
            let seen = take(seen, piece.len() * inner);
            for index in 0..heads {
                let first = index * head_width;
                let queries = Rows::new(&queries[first..], piece.len(), inner);
                let head = &exchange.shown[image * heads + index];
                attend(
                    queries,
                    piece.len(),
                    head,
                    (&mut seen[first..], inner),
                    (scores, weights),
                )?;
            }
            asking.out.add(N::of_all(seen, narrow), x)?;
            layer.norm_4.in_place(x, take(normed, x.len()));
            Ok(())
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            let [first, second] = &layer.mlp;
            let looks = [&layer.own, &layer.to_picture, &layer.to_tokens];
            looks.map(Projections::bytes).iter().sum::<usize>() + first.bytes() + second.bytes()
        });
        layers.sum::<usize>() + self.last.bytes()
    }
}

impl<N: Number> Layer<N> {
    fn new(block: &TwoWayBlock) -> Result<Self> {
        Ok(Self {
            own: Projections::new(&block.self_attn)?,
            norm_1: Norm::new(&block.norm1)?,
            to_picture: Projections::new(&block.cross_attn_token_to_image)?,
            norm_2: Norm::new(&block.norm2)?,
            mlp: [Dense::new(&block.mlp.lin1)?, Dense::new(&block.mlp.lin2)?],
            norm_3: Norm::new(&block.norm3)?,
            to_tokens: Projections::new(&block.cross_attn_image_to_token)?,
            norm_4: Norm::new(&block.norm4)?,
            first: block.first,
        })
    }

    /// One image's tokens look at themselves. In the first layer they are their own positions, and all that remains of
    /// them is what they saw.
    fn look_at_themselves(&self, tokens: &mut [f32], positions: &[f32], room: &mut Room<N>) -> Result<()> {
        let own = &self.own;
        let (inner, head_width) = (own.inner(), own.head_width());
        let count = tokens.len() / own.out.outputs();
        let Room {
            floats: [placed, queries, keys, values, scores, seen],
            numbers: [narrow, weights, plain],
            head,
            ..
        } = room;
        let placed = take(placed, tokens.len());
        if self.first {
            placed.copy_from_slice(tokens);
        } else {
            sum(tokens, positions, placed);
        }
        let [queries, keys, values, seen] = [queries, keys, values, seen].map(|b| take(b, count * inner));
        let asking = N::of_all(placed, narrow);
        own.query.run(asking, queries)?;
        own.key.run(asking, keys)?;
        own.value.run(N::of_all(tokens, plain), values)?;
        let queries = N::of_all(queries, narrow);
        for first in (0..inner).step_by(head_width) {
            head.pack(keys, values, inner, (first, head_width), plain)?;
            let queries = Rows::new(&queries[first..], count, inner);
            attend(
                queries,
                count,
                head,
                (&mut seen[first..], inner),
                (scores, weights),
            )?;
        }
        if self.first {
            tokens.fill(0.0);
        }
        own.out.add(N::of_all(seen, plain), tokens)?;
        self.norm_1.in_place(tokens, placed);
        Ok(())
    }

    /// One image's tokens go through their MLP and show themselves to the picture.
    fn show(
        &self,
        tokens: &mut [f32],
        positions: &[f32],
        room: &mut Room<N>,
        shown: &mut [Head<N>],
    ) -> Result<()> {
        let Room {
            floats: [placed, hidden, keys, values, ..],
            numbers: [narrow, plain, ..],
            ..
        } = room;
        let [first, second] = &self.mlp;
        let placed = take(placed, tokens.len());
        let count = tokens.len() / first.inputs();
        let hidden = take(hidden, count * first.outputs());
        first.run(N::of_all(tokens, narrow), hidden)?;
        hidden.iter_mut().for_each(|value| *value = value.max(0.0));
        second.add(N::of_all(hidden, narrow), tokens)?;
        self.norm_3.in_place(tokens, placed);
        sum(tokens, positions, placed);
        let (inner, head_width) = (self.to_tokens.inner(), self.to_tokens.head_width());
        let [keys, values] = [keys, values].map(|b| take(b, count * inner));
        self.to_tokens.key.run(N::of_all(placed, narrow), keys)?;
        self.to_tokens.value.run(N::of_all(tokens, plain), values)?;
        for (index, head) in shown.iter_mut().enumerate() {
            head.pack(keys, values, inner, (index * head_width, head_width), narrow)?;
        }
        Ok(())
    }
}

/// `count` queries look at a head's keys: the softmax of their products, times the values.
fn attend<N: Number>(
    queries: Rows<'_, N>,
    count: usize,
    head: &Head<N>,
    (seen, stride): (&mut [f32], usize),
    (scores, weights): (&mut Buffer<f32>, &mut Buffer<N>),
) -> Result<()> {
    let keys = head.keys.outputs();
    let pitch = keys.next_multiple_of(N::DEPTH);
    let scores = take(scores, count * pitch);
    product(scores, pitch, Start::Zero, queries, &head.keys.all())?;
    softmax_rows(scores, pitch, keys, 1.0 / (head.keys.inputs() as f32).sqrt());
    let weights = Rows::new(N::of_all(scores, weights), count, pitch);
    product(seen, stride, Start::Zero, weights, &head.values.all())
}
