use super::*;
use crate::plan::{Linear, Node};

fn linear(out: u32, bias: bool, init: Init) -> Layer {
    Layer::Linear(Linear { out, bias, init })
}

#[test]
fn tensors_are_named_by_layer_and_shaped_in_by_out() {
    let layers =
        Model::Layers(vec![linear(4, true, Init::TorchDefault), Layer::Relu {}, linear(1, false, Init::Zeros)]);
    let shapes: Vec<_> = tensors(&layers, 13u64).into_iter().map(|t| (t.name, t.shape)).collect();
    assert_eq!(shapes, [("0.weight".into(), vec![13, 4]), ("0.bias".into(), vec![4]), ("2.weight".into(), vec![4, 1])]);
    assert_eq!(parameters(&layers, 13u64), 13 * 4 + 4 + 4);
    assert_eq!(initial(&layers, 13u64, 1).len(), 60);
}

#[test]
fn a_model_stays_one_affine_map_however_many_linear_layers_it_is_written_in() {
    let one = || linear(1, true, Init::Zeros);
    let alike: [&[Layer]; 6] = [
        &[one()],
        &[one(), one()],
        &[one(), one(), one()],
        &[one(), one(), Layer::Sigmoid {}],
        &[Layer::Tanh {}, one(), one()],
        &[],
    ];
    for layers in alike {
        assert!(is_glm_like(&layers.to_vec().into()), "{layers:?}");
    }
    for activation in [Layer::Relu {}, Layer::Gelu {}, Layer::Tanh {}, Layer::Sigmoid {}] {
        assert!(!is_glm_like(&vec![one(), activation.clone(), one()].into()), "{activation:?}");
        assert!(!is_glm_like(&vec![one(), one(), activation.clone(), one()].into()), "{activation:?}");
    }
}

#[test]
fn initial_values_are_the_same_for_ever_and_within_their_bounds() {
    let layers = Model::Layers(vec![linear(1, true, Init::TorchDefault)]);
    let values = initial(&layers, 13u64, 42);
    assert_eq!(values, initial(&layers, 13u64, 42));
    assert_ne!(values, initial(&layers, 13u64, 43));
    let bound = 1.0 / 13f32.sqrt();
    assert!(values.iter().all(|v| v.abs() < bound));
    assert_eq!(
        canon::digest("test", 1, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).short(),
        "6da81aaf"
    );
    assert!(initial(&vec![linear(3, true, Init::Zeros)].into(), 2u64, 0).iter().all(|v| *v == 0.0));
    let many = initial(&vec![linear(1_000, false, Init::TorchDefault)].into(), 100u64, 7);
    let mean = many.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
    let square = many.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e5;
    // U(−.1, .1) has variance 1/300; five standard errors of mean and of the mean square.
    assert!(mean.abs() < 5.0 * (1.0f64 / 300.0 / 1e5).sqrt(), "{mean}");
    assert!((square - 1.0 / 300.0).abs() < 5.0 * 2.981e-3 / 1e5f64.sqrt(), "{square}");
}

#[test]
fn absurd_sizes_saturate_and_never_panic() {
    let layers = Model::Layers(vec![linear(u32::MAX, true, Init::Zeros); 3]);
    assert_eq!(parameters(&layers, u64::MAX), u64::MAX);
    assert!(tensors(&vec![].into(), 3u64).is_empty() && initial(&vec![].into(), 3u64, 0).is_empty());
}

fn node(name: &str, layer: Layer, from: &[&str]) -> Node {
    Node { name: name.into(), layer, from: from.iter().map(|f| (*f).to_owned()).collect() }
}

#[test]
fn a_way_around_the_activation_makes_a_graph_like_a_glm() {
    let wide = || linear(4, true, Init::TorchDefault);
    let graph = |end: &[&str]| {
        let graph = vec![
            node("a", wide(), &[]),
            node("bent", Layer::Relu {}, &[]),
            node("b", wide(), &[]),
            node("end", Layer::Add {}, end),
        ];
        Model::Graph(Graph { graph })
    };
    assert!(!is_glm_like(&graph(&["b", "b"])));
    assert!(is_glm_like(&graph(&["a", "b"])));
}

#[test]
fn every_layer_has_its_shape_and_says_what_does_not_fit() {
    let image = Inputs { features: 0, image: Some([1, 28, 28]) };
    let conv = |out, kernel, stride, padding| Layer::Conv2d(Conv { out, kernel, stride, padding, bias: true });
    let pool = |kernel| Layer::MaxPool(Pool { kernel, stride: None, padding: 0 });
    let model = Model::Layers(vec![
        conv(8, 3, 1, 1),
        Layer::BatchNorm(crate::plan::BatchNorm::default()),
        Layer::Relu {},
        pool(2),
        conv(16, 5, 2, 0),
        Layer::GlobalPool {},
        linear(2, true, Init::TorchDefault),
    ]);
    let (placed, misfit) = place(&model, image);
    assert_eq!(misfit, None);
    let shapes: Vec<&[u64]> = placed.iter().map(|p| &p.out[..]).collect();
    let same: &[u64] = &[8, 28, 28];
    assert_eq!(shapes, [same, same, same, &[8, 14, 14], &[16, 5, 5], &[16], &[2]]);
    let names: Vec<String> = tensors(&model, image).into_iter().map(|t| t.name).collect();
    let expected = [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "4.weight",
        "4.bias",
        "6.weight",
        "6.bias",
    ];
    assert_eq!(names, expected);
    assert_eq!(placed[1].trained, 2);
    let values = initial(&model, image, 1);
    assert_eq!(values.len() as u64, parameters(&model, image));
    // Batch norm begins as the identity: weight 1, bias 0, mean 0, variance 1.
    assert_eq!(values[80..112], [[1.0f32; 8], [0.0; 8], [0.0; 8], [1.0; 8]].concat());

    let misfit = |layers: Vec<Layer>| place(&layers.into(), image).1.map(|m| (m.layer, m.field, m.reason)).unwrap();
    assert_eq!(
        misfit(vec![linear(2, true, Init::Zeros)]),
        (
            0,
            "linear".into(),
            "gets [batch, 1, 28, 28] and needs [batch, n]; put flatten or global_pool before it".into()
        )
    );
    assert_eq!(
        misfit(vec![conv(2, 31, 1, 1)]),
        (0, "conv2d.kernel".into(), "is 31, larger than a side of 28 with 1 cells of padding at each end".into())
    );
    assert_eq!(
        misfit(vec![Layer::Flatten {}, Layer::Reshape(crate::plan::Reshape { shape: vec![3, 3] })]),
        (1, "reshape".into(), "gets [batch, 784] and needs as many values as [3, 3] has".into())
    );
    assert_eq!(misfit(vec![Layer::Add {}]).1, "from");
}
