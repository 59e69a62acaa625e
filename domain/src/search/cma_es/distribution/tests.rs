use super::*;
use crate::search::cma_es::margin::{Cells, Margin};
use crate::search::reference;

/// What the `cmaes` package has after a generation.
#[derive(serde::Deserialize)]
struct Generation {
    solutions: Vec<Vec<f64>>,
    #[serde(default)]
    points: Vec<Vec<f64>>,
    mean: Vec<f64>,
    sigma: f64,
    covariance: Matrix,
    #[serde(default)]
    scales: Vec<f64>,
}

fn of<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_close<'a>(found: impl IntoIterator<Item = &'a f64>, expected: impl IntoIterator<Item = &'a f64>) {
    let (found, expected): (Vec<_>, Vec<_>) = (found.into_iter().collect(), expected.into_iter().collect());
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((**found - **expected).abs() < 1e-9 * (1.0 + expected.abs()), "{found} {expected}");
    }
}

#[test]
fn it_learns_as_the_package_does() {
    for case in reference()["cma_es"]["cases"].as_array().unwrap() {
        let covariance: Matrix = of(&case["initial_covariance"]);
        let population = case["population"].as_u64().unwrap() as usize;
        let mut distribution = Distribution::new(vec![0.5; covariance.len()], 0.2, covariance, population);
        assert_close(&distribution.constants.weights, &of::<Vec<f64>>(&case["weights"]));
        for Generation { solutions, mean, sigma, covariance, .. } in of::<Vec<Generation>>(&case["generations"]) {
            distribution.learn(&solutions);
            assert_close(&distribution.mean, &mean);
            assert_close([&distribution.sigma], [&sigma]);
            assert_close(distribution.covariance.iter().flatten(), covariance.iter().flatten());
        }
    }
}

#[test]
fn whole_numbers_are_those_of_the_package() {
    let case = &reference()["cma_es"]["margin"];
    let cells = of::<Vec<u64>>(&case["cells"]).into_iter();
    let cells: Vec<Cells> = cells.map(|n| if n == 0 { Cells::Continuous } else { Cells::Equal(n) }).collect();
    let population = case["population"].as_u64().unwrap() as usize;
    let mut margin = Margin::new(cells.clone(), population);
    let mut distribution = Distribution::new(of(&case["mean"]), 0.2, eigen::identity(cells.len()), population);
    for generation in of::<Vec<Generation>>(&case["generations"]) {
        let Generation { solutions, points, mean, sigma, covariance, scales } = generation;
        for (x, expected) in solutions.iter().zip(&points) {
            // The package does not clip here what lies outside of the cube.
            let found = margin.point(&distribution.mean, x);
            assert_close(&found[1..], &expected[1..]);
        }
        distribution.learn(&solutions);
        margin.correct(&mut distribution);
        assert_close(&distribution.mean, &mean);
        assert_close([&distribution.sigma], [&sigma]);
        assert_close(distribution.covariance.iter().flatten(), covariance.iter().flatten());
        assert_close(&margin.scales, &scales);
    }
}

#[test]
fn a_warm_start_is_that_of_the_package() {
    let case = &reference()["cma_es"]["warm_start"];
    let (mean, sigma, covariance) = promised(&of::<Matrix>(&case["solutions"]));
    assert_close(&mean, &of::<Vec<f64>>(&case["mean"]));
    assert_close([&sigma], [&case["sigma"].as_f64().unwrap()]);
    assert_close(covariance.iter().flatten(), of::<Matrix>(&case["covariance"]).iter().flatten());
    let one = promised(&[vec![0.2, 0.9]]);
    assert_close(&one.0, &[0.2, 0.9]);
    assert_close([&one.1], [&0.1]);
}

#[test]
fn solutions_are_distributed_as_it_says() {
    use crate::random::{Purpose, Stream};
    let covariance = vec![vec![1.0, 0.6], vec![0.6, 2.0]];
    let distribution = Distribution::new(vec![3.0, -1.0], 0.5, covariance.clone(), 6);
    let mut stream = Stream::new(1, Purpose::Search, &[]);
    let drawn: Vec<Vec<f64>> = (0..20_000).map(|_| distribution.sample(&mut stream)).collect();
    for (i, row) in covariance.iter().enumerate() {
        for (j, expected) in row.iter().enumerate() {
            let product = |x: &Vec<f64>| (x[i] - distribution.mean[i]) * (x[j] - distribution.mean[j]);
            let found = drawn.iter().map(product).sum::<f64>() / 20_000.0 / 0.25;
            assert!((found - expected).abs() < 0.06, "{found} {expected}");
        }
    }
    let near = [3.1, -1.1];
    assert_close(&distribution.shortened(&near), &near);
    let far = distribution.shortened(&[1e6, 1e6]);
    let length = norm(&distribution.whitened(&distribution.steps(&far)));
    assert!((length - (libm::sqrt(2.0) + 1.0)).abs() < 1e-6, "{length}");
    assert_eq!(distribution.shortened(&distribution.mean.clone()), distribution.mean);
}

#[test]
fn it_finds_the_bottom_of_a_bent_valley() {
    use crate::random::{Purpose, Stream};
    let rosenbrock =
        |x: &Vec<f64>| x.windows(2).map(|w| 100.0 * (w[1] - w[0] * w[0]).powi(2) + (1.0 - w[0]).powi(2)).sum::<f64>();
    let mut distribution = Distribution::new(vec![0.0; 5], 0.5, eigen::identity(5), 8);
    let mut stream = Stream::new(2, Purpose::Search, &[]);
    for _ in 0..450 {
        let mut solutions: Vec<Vec<f64>> = (0..8).map(|_| distribution.sample(&mut stream)).collect();
        solutions.sort_by(|a, b| rosenbrock(a).total_cmp(&rosenbrock(b)));
        distribution.learn(&solutions);
    }
    assert!(rosenbrock(&distribution.mean) < 1e-8, "{:?}", distribution.mean);
    assert!(distribution.condition() > 10.0 && distribution.condition().is_finite());
}
