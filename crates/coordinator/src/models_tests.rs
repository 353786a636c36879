use super::*;

fn tensors() -> Vec<TensorShape> {
    let shape = |name: &str, shape: Vec<u64>| TensorShape { name: name.into(), shape };
    vec![shape("0.weight", vec![3, 2]), shape("0.bias", vec![2])]
}

fn shelf() -> (tempfile::TempDir, Models) {
    let folder = tempfile::tempdir().unwrap();
    let models = Models::open(folder.path().join("models")).unwrap();
    (folder, models)
}

async fn written(models: &Models) -> Digest {
    let mut writer = models.write(&tensors()).unwrap();
    writer.push((0..5).map(|i| i as f32)).unwrap();
    writer.push([5.0, 6.0, 7.0]).unwrap();
    models.keep(writer.finish().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_model_is_read_by_the_reference_implementation_of_safetensors() {
    let (_folder, models) = shelf();
    let digest = written(&models).await;
    let bytes = std::fs::read(models.path(digest)).unwrap();
    assert_eq!(hospes_protocol::canon::digest("model", 1, &bytes), digest);
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let weight = parsed.tensor("0.weight").unwrap();
    assert_eq!((weight.dtype(), weight.shape()), (safetensors::Dtype::F32, &[3, 2][..]));
    assert_eq!(weight.data()[4..8], 1f32.to_le_bytes());
    assert_eq!(parsed.tensor("0.bias").unwrap().data()[4..8], 7f32.to_le_bytes());
    assert_eq!(Layout::read(&models.path(digest)).unwrap().tensors, tensors());
    assert_eq!(models.size(digest).await.unwrap(), Some(bytes.len() as u64));
    assert_eq!(models.read(digest, 8..20).await.unwrap(), bytes[8..20]);
    assert_eq!(models.list().unwrap(), [digest]);
}

#[tokio::test]
async fn the_same_values_have_the_same_name_and_naming_them_again_changes_nothing() {
    let (_folder, models) = shelf();
    let first = written(&models).await;
    assert_eq!(written(&models).await, first);
    models.delete(first).await.unwrap();
    models.delete(first).await.unwrap();
    assert_eq!(models.size(first).await.unwrap(), None);
    assert!(models.read(first, 0..8).await.is_err());
}

#[tokio::test]
async fn nan_too_few_and_too_many_values_make_no_model_and_leave_no_file() {
    let (folder, models) = shelf();
    let mut nan = models.write(&tensors()).unwrap();
    assert!(nan.push([f32::NAN]).is_err());
    drop(nan);
    let mut many = models.write(&tensors()).unwrap();
    assert!(many.push([0.0; 9]).is_err());
    drop(many);
    let mut few = models.write(&tensors()).unwrap();
    few.push([0.0; 7]).unwrap();
    assert!(few.finish().is_err());
    let mut unnamed = models.write(&tensors()).unwrap();
    unnamed.push([0.0; 8]).unwrap();
    drop(unnamed.finish().unwrap());
    assert_eq!(std::fs::read_dir(folder.path().join("models/scratch")).unwrap().count(), 0);
    // What a kill leaves is swept away at the next start.
    std::fs::write(folder.path().join("models/scratch/0badf00d"), b"half a model").unwrap();
    Models::open(folder.path().join("models")).unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("models/scratch")).unwrap().count(), 0);
}

#[tokio::test]
async fn altered_headers_are_refused() {
    let (folder, models) = shelf();
    let digest = written(&models).await;
    let good = std::fs::read(models.path(digest)).unwrap();
    let path = folder.path().join("altered");
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut shifted = good.clone();
    let place = shifted.windows(4).position(|w| w == b"[0,2").unwrap();
    shifted[place + 1] = b'4';
    let text = |from: &str, to: &str| {
        let header = String::from_utf8_lossy(&good[8..]).replace(from, to);
        [&good[..8], header.as_bytes()].concat()
    };
    for bad in [huge, shifted, good[..good.len() - 4].to_vec(), text("F32", "F64"), b"short".to_vec()] {
        std::fs::write(&path, bad).unwrap();
        assert!(Layout::read(&path).is_err());
    }
}

/// Figures of an evaluation: of a site, or of all together (0); the slope of its recalibration, and the rows of women.
fn figures(site: u8, n: f64, slope: Option<f64>, women: Option<f64>) -> serde_json::Value {
    let site = (site > 0).then(|| SiteId::from_bytes([site; 16]));
    let of = |n: Option<f64>| serde_json::json!({ "task": "eval", "site": site, "n": n, "withheld": {} });
    let mut figures = of(Some(n));
    figures["calibration_slope"] = serde_json::json!(slope);
    figures["subgroups"] = serde_json::json!([{ "column": "sex", "code": "f", "sites": 1, "metrics": of(women) }]);
    figures
}

fn card(metrics: &[serde_json::Value]) -> Card {
    let at = Timestamp::from_millis(1);
    let lineage = serde_json::json!({
        "study": StudyId::new(at, [1; 10]), "study_digest": Digest::of(b"s"), "plan": Digest::of(b"p"),
        "job": JobId::new(at, [1; 10]), "task": "train", "rounds": [], "initial": null, "at": at, "checkpoint": "",
    });
    let card = serde_json::json!({
        "model": Digest::of(b"m"), "title": "t", "purpose": "p", "requester": "r", "columns": [], "parties": [],
        "privacy": "none", "metrics": metrics, "tensors": [], "lineage": lineage,
    });
    serde_json::from_value(card).unwrap()
}

#[test]
fn a_site_gets_no_fit_that_one_other_site_is_alone_in() {
    let site = |n: u8| SiteId::from_bytes([n; 16]);
    let given = |sites: &[u8]| {
        let sites: Vec<SiteId> = sites.iter().map(|n| site(*n)).collect();
        let fit = serde_json::json!({
            "task": "odds", "family": "binomial", "sites": sites, "n": 30.0, "coefficients": [], "statistic": "z",
            "confidence": 0.95, "log_likelihood": -10.0, "null_log_likelihood": -20.0, "aic": 24.0, "baseline": [],
            "iterations": 5, "converged": true,
        });
        let card = Card { fits: vec![serde_json::from_value(fit).unwrap()], ..card(&[]) };
        card.for_site(site(1)).fits.len()
    };
    assert_eq!([given(&[1, 2, 3]), given(&[1, 2]), given(&[1])], [1, 0, 1]);
}

#[test]
fn a_site_gets_no_figures_that_one_other_site_is_alone_in() {
    let site = |n: u8| SiteId::from_bytes([n; 16]);
    let two = card(&[figures(1, 10.0, None, None), figures(2, 20.0, None, None), figures(0, 30.0, None, None)]);
    let places: Vec<_> = two.for_site(site(1)).metrics.iter().map(|m| m.site).collect();
    assert_eq!(places, [Some(site(1))], "what is of two less its own is the other's");
    // One of three has a slope, and two show their women.
    let three = card(&[
        figures(1, 10.0, Some(0.9), Some(4.0)),
        figures(2, 20.0, None, Some(5.0)),
        figures(3, 30.0, None, None),
        figures(0, 60.0, Some(0.9), Some(9.0)),
    ]);
    let together = |n: u8| {
        let mut metrics = three.clone().for_site(site(n)).metrics;
        let (all, own) = (metrics.pop().unwrap(), metrics.pop().unwrap());
        assert_eq!((all.site, all.n, own.site, metrics.len()), (None, Some(60.0), Some(site(n)), 0));
        (all.further.calibration_slope, all.subgroups.len())
    };
    assert_eq!(together(1), (Some(0.9), 0), "the slope is its own; the women less its own are another site's");
    assert_eq!(together(2), (None, 0));
    assert_eq!(together(3), (None, 1), "two others show their women");
}
