//! The networks of the comparison, on the operators that every architecture uses.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use models::nn::{
    self, Activation, BatchNorm, Conv2d, Order, Pattern, RunningStatistics, Statistics, Tape, Then, tensor_of,
};

/// What a network reads.
pub(crate) enum Inputs {
    /// `[samples, channels, height, width]`.
    Images { values: Vec<f32>, shape: [usize; 4] },
    /// `[samples, tokens]`.
    Words { ids: Vec<u32>, tokens: usize },
}

/// A network, with its weights by name.
pub(crate) struct Network {
    kind: Kind,
    weights: BTreeMap<String, Tensor>,
    /// Of the batch norms, by name; a training keeps them for evaluations.
    statistics: RefCell<BTreeMap<String, RunningStatistics>>,
}

#[derive(Clone, Copy)]
enum Kind {
    VitTiny,
    Gpt2,
    Bert,
    Cnn,
}

/// Sorts names so that what is used later comes later: layers by number.
pub(crate) fn order(name: &str) -> (u8, u32, String) {
    let number = |text: &str| text.parse::<u32>().ok();
    let mut parts = name.split('.');
    // A layer of a ResNet is numbered by stage and block.
    let stage = parts.next().and_then(|part| number(part.strip_prefix("layer")?)).unwrap_or_default();
    let number = parts.find_map(number).map(|block| 100 * stage + block);
    let place = match number {
        Some(_) => 1,
        None if name.contains("embeddings") || name.contains("wte") || name.contains("wpe") => 0,
        None if name.starts_with("conv1.") || name.starts_with("bn1.") => 0,
        None => 2,
    };
    (place, number.unwrap_or_default(), name.to_owned())
}

impl Network {
    pub(crate) fn named(work: &str, weights: &BTreeMap<String, Tensor>) -> Result<Self> {
        let kind = match work {
            "vit-tiny" => Kind::VitTiny,
            "gpt2" => Kind::Gpt2,
            "bert" => Kind::Bert,
            "cnn" => Kind::Cnn,
            other => bail!("there is no network `{other}`"),
        };
        Ok(Self { kind, weights: weights.clone(), statistics: RefCell::default() })
    }

    /// `[samples, classes]`, or `[samples, tokens, words]`.
    pub(crate) fn logits(&self, tape: &Tape<'_>, inputs: &Inputs) -> Result<Tensor> {
        match (self.kind, inputs) {
            (Kind::VitTiny, Inputs::Images { values, shape }) => self.vit_tiny(tape, values, *shape),
            (Kind::Cnn, Inputs::Images { values, shape }) => self.cnn(tape, values, *shape),
            (Kind::Gpt2, Inputs::Words { ids, tokens }) => self.gpt2(tape, ids, *tokens),
            (Kind::Bert, Inputs::Words { ids, tokens }) => self.bert(tape, ids, *tokens),
            _ => bail!("the inputs are not of the kind that the network reads"),
        }
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        match self.weights.get(name) {
            Some(weight) => Ok(weight),
            None => bail!("there is no weight `{name}`"),
        }
    }

    /// The weight and the bias of a layer.
    fn layer(&self, name: &str) -> Result<[&Tensor; 2]> {
        Ok([self.weight(&format!("{name}.weight"))?, self.weight(&format!("{name}.bias"))?])
    }

    fn linear(&self, tape: &Tape<'_>, x: &Tensor, name: &str) -> Result<Tensor> {
        let [weight, bias] = self.layer(name)?;
        nn::linear(tape, x, weight, Some(bias))
    }

    fn conv1d(&self, tape: &Tape<'_>, x: &Tensor, name: &str) -> Result<Tensor> {
        let [weight, bias] = self.layer(name)?;
        nn::linear_inputs_first(tape, x, weight, Some(bias))
    }

    fn norm(&self, tape: &Tape<'_>, x: &Tensor, name: &str, eps: f32) -> Result<Tensor> {
        let [gain, bias] = self.layer(name)?;
        nn::layer_norm(tape, x, gain, bias, eps)
    }

    fn add_norm(&self, tape: &Tape<'_>, terms: [&Tensor; 2], name: &str, eps: f32) -> Result<[Tensor; 2]> {
        let [gain, bias] = self.layer(name)?;
        nn::add_layer_norm(tape, terms, gain, bias, eps)
    }

    fn attention(&self, tape: &Tape<'_>, x: &Tensor, name: &str, heads: usize) -> Result<Tensor> {
        let [query, key, value] = ["query", "key", "value"].map(|part| self.layer(&format!("{name}.{part}")));
        let layers = [query?, key?, value?].map(|[weight, bias]| (weight, Some(bias)));
        nn::self_attention(tape, &nn::linear_stack(tape, x, &layers)?, heads, Pattern::default())
    }

    fn vit_tiny(&self, tape: &Tape<'_>, images: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        const EPS: f32 = 1e-6;
        tape.enter("vit.embeddings");
        let patches = nn::patches(images, shape, 16)?;
        let x = self.linear(tape, &patches, "vit.embeddings.patch_embeddings.projection")?;
        let class_token = self.weight("vit.embeddings.cls_token")?;
        let positions = self.weight("vit.embeddings.position_embeddings")?;
        let mut x = nn::embed(tape, &x, Some(class_token), positions)?;
        for i in 0..12 {
            let name = format!("vit.encoder.layer.{i}");
            tape.enter(&name);
            let normed = self.norm(tape, &x, &format!("{name}.layernorm_before"), EPS)?;
            let attended = self.attention(tape, &normed, &format!("{name}.attention.attention"), 3)?;
            let more = self.linear(tape, &attended, &format!("{name}.attention.output.dense"))?;
            let [sum, normed] = self.add_norm(tape, [&x, &more], &format!("{name}.layernorm_after"), EPS)?;
            x = sum;
            let [weight, bias] = self.layer(&format!("{name}.intermediate.dense"))?;
            let hidden =
                nn::linear_activated(tape, &normed, (weight, Some(bias)), Order::OutputsFirst, Activation::Gelu)?;
            x = nn::add(tape, &x, &self.linear(tape, &hidden, &format!("{name}.output.dense"))?)?;
        }
        tape.enter("classifier");
        let pooled = self.norm(tape, &nn::first_token(tape, &x)?, "vit.layernorm", EPS)?;
        self.linear(tape, &pooled, "classifier")
    }

    fn gpt2(&self, tape: &Tape<'_>, ids: &[u32], tokens: usize) -> Result<Tensor> {
        const EPS: f32 = 1e-5;
        tape.enter("transformer.wte");
        let samples = ids.len() / tokens;
        let words = self.weight("transformer.wte.weight")?;
        let places: Vec<u32> = (0..samples).flat_map(|_| 0..tokens as u32).collect();
        let x = nn::embedding(tape, words, ids, [samples, tokens])?;
        let mut x = nn::add(
            tape,
            &x,
            &nn::embedding(tape, self.weight("transformer.wpe.weight")?, &places, [samples, tokens])?,
        )?;
        for i in 0..12 {
            let name = format!("transformer.h.{i}");
            tape.enter(&name);
            let normed = self.norm(tape, &x, &format!("{name}.ln_1"), EPS)?;
            let qkv = self.conv1d(tape, &normed, &format!("{name}.attn.c_attn"))?;
            let pattern = Pattern { causal: true, ..Pattern::default() };
            let attended = nn::self_attention(tape, &qkv, 12, pattern)?;
            let more = self.conv1d(tape, &attended, &format!("{name}.attn.c_proj"))?;
            let [sum, normed] = self.add_norm(tape, [&x, &more], &format!("{name}.ln_2"), EPS)?;
            x = sum;
            let [weight, bias] = self.layer(&format!("{name}.mlp.c_fc"))?;
            let hidden =
                nn::linear_activated(tape, &normed, (weight, Some(bias)), Order::InputsFirst, Activation::GeluTanh)?;
            x = nn::add(tape, &x, &self.conv1d(tape, &hidden, &format!("{name}.mlp.c_proj"))?)?;
        }
        tape.enter("lm_head");
        nn::linear(tape, &self.norm(tape, &x, "transformer.ln_f", EPS)?, words, None)
    }

    fn bert(&self, tape: &Tape<'_>, ids: &[u32], tokens: usize) -> Result<Tensor> {
        const EPS: f32 = 1e-12;
        tape.enter("bert.embeddings");
        let samples = ids.len() / tokens;
        let places: Vec<u32> = (0..samples).flat_map(|_| 0..tokens as u32).collect();
        let table = |name: &str| self.weight(&format!("bert.embeddings.{name}.weight"));
        let words = nn::embedding(tape, table("word_embeddings")?, ids, [samples, tokens])?;
        let positions = nn::embedding(tape, table("position_embeddings")?, &places, [samples, tokens])?;
        let types = nn::embedding(tape, table("token_type_embeddings")?, &vec![0; ids.len()], [samples, tokens])?;
        let x = nn::add(tape, &words, &nn::add(tape, &positions, &types)?)?;
        let mut x = self.norm(tape, &x, "bert.embeddings.LayerNorm", EPS)?;
        for i in 0..12 {
            let name = format!("bert.encoder.layer.{i}");
            tape.enter(&name);
            let attended = self.attention(tape, &x, &format!("{name}.attention.self"), 12)?;
            let more = self.linear(tape, &attended, &format!("{name}.attention.output.dense"))?;
            [_, x] = self.add_norm(tape, [&x, &more], &format!("{name}.attention.output.LayerNorm"), EPS)?;
            let [weight, bias] = self.layer(&format!("{name}.intermediate.dense"))?;
            let hidden = nn::linear_activated(tape, &x, (weight, Some(bias)), Order::OutputsFirst, Activation::Gelu)?;
            let more = self.linear(tape, &hidden, &format!("{name}.output.dense"))?;
            [_, x] = self.add_norm(tape, [&x, &more], &format!("{name}.output.LayerNorm"), EPS)?;
        }
        tape.enter("classifier");
        let first = nn::first_token(tape, &x)?;
        let [weight, bias] = self.layer("bert.pooler.dense")?;
        let pooled = nn::linear_activated(tape, &first, (weight, Some(bias)), Order::OutputsFirst, Activation::Tanh)?;
        self.linear(tape, &pooled, "classifier")
    }

    /// A convolution and the batch norm behind it.
    fn convolution(
        &self,
        tape: &Tape<'_>,
        x: &Tensor,
        [conv, norm]: [&str; 2],
        stride: usize,
        then: Then,
    ) -> Result<Tensor> {
        const MOMENTUM: f32 = 0.1;
        let weight = self.weight(&format!("{conv}.weight"))?;
        // Images keep their size, or their size over the stride.
        let padding = weight.dim(2)? / 2;
        let how = Conv2d { stride: [stride; 2], padding: [padding; 2], ..Conv2d::default() };
        let x = nn::conv2d(tape, x, weight, None, how)?;
        let [gain, bias] = self.layer(norm)?;
        let mut all = self.statistics.borrow_mut();
        let running = all.entry(norm.to_owned()).or_insert_with(|| RunningStatistics::new(gain.elem_count(), MOMENTUM));
        nn::batch_norm(tape, &x, BatchNorm { gain, bias, eps: 1e-5, then }, Statistics::Batch(Some(running)))
    }

    /// The first two stages of ResNet-18, without its stem.
    fn cnn(&self, tape: &Tape<'_>, images: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        tape.enter("conv1");
        let images = tensor_of(images.to_vec(), shape.as_slice())?;
        let mut x = self.convolution(tape, &images, ["conv1", "bn1"], 1, Then::Relu)?;
        for (name, stride) in [("layer1.0", 1), ("layer1.1", 1), ("layer2.0", 2), ("layer2.1", 1)] {
            tape.enter(name);
            let part = |part: &str| format!("{name}.{part}");
            let [conv1, bn1, conv2, bn2] = ["conv1", "bn1", "conv2", "bn2"].map(part);
            let hidden = self.convolution(tape, &x, [&conv1, &bn1], stride, Then::Relu)?;
            let more = self.convolution(tape, &hidden, [&conv2, &bn2], 1, Then::Nothing)?;
            if stride > 1 {
                let names = ["downsample.0", "downsample.1"].map(part);
                x = self.convolution(tape, &x, [&names[0], &names[1]], stride, Then::Nothing)?;
            }
            x = nn::activation(tape, Activation::Relu, &nn::add(tape, &more, &x)?)?;
        }
        tape.enter("fc");
        self.linear(tape, &nn::global_avg_pool(tape, &x)?, "fc")
    }
}
