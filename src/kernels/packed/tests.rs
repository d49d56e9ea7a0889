use super::*;
use half::bf16;

/// Numbers that bfloat16 holds exactly, so that both types give the same sums to the last bit but order.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 58) as f32 - 32.0) / 16.0
    };
    (0..count).map(|_| next()).collect()
}

fn holds<N: Number>(rows: usize, inputs: usize, outputs: usize) {
    let what = format!("{} {rows}x{inputs}x{outputs}", N::NAME);
    let stride = inputs.next_multiple_of(N::DEPTH) + 2 * N::DEPTH;
    let left = numbers(rows * stride, 1);
    let weight = numbers(outputs * inputs, 2);
    let before = numbers(rows * (outputs + 3), 3);
    let narrow: Vec<N> = left.iter().map(|v| N::of(*v)).collect();
    let panels = Panels::<N>::of_weight(&weight, outputs, inputs).unwrap();
    let row = numbers(outputs, 7);
    for start in [
        Start::Zero,
        Start::Output,
        Start::Row(&row),
        Start::OutputAndRow(&row),
    ] {
        let mut got = before.clone();
        product(
            &mut got,
            outputs + 3,
            start,
            Rows::new(&narrow, rows, stride),
            &panels.all(),
        )
        .unwrap();
        for row in 0..rows {
            for output in 0..outputs + 3 {
                let at = row * (outputs + 3) + output;
                let sum: f32 = match output < outputs {
                    true => (0..inputs)
                        .map(|i| left[row * stride + i] * weight[output * inputs + i])
                        .sum(),
                    false => 0.0,
                };
                let wanted = match start {
                    _ if output >= outputs => before[at],
                    Start::Zero => sum,
                    Start::Output => before[at] + sum,
                    Start::Row(row) => row[output] + sum,
                    Start::OutputAndRow(row) => before[at] + row[output] + sum,
                };
                assert!(
                    (got[at] - wanted).abs() <= 1e-4 * wanted.abs().max(inputs as f32),
                    "{what} {start:?} at {row}, {output}: {} for {wanted}",
                    got[at]
                );
            }
        }
    }
}

const SIZES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (3, 5, 7),
    (8, 16, 48),
    (9, 17, 49),
    (13, 64, 12),
    (7, 31, 100),
    (16, 2, 33),
    (5, 196, 64),
    (2, 700, 20),
    (33, 1000, 97),
    (6, 384, 16),
    (4, 1, 200),
];

#[test]
fn products_equal_their_definition() {
    for (rows, inputs, outputs) in SIZES {
        holds::<f32>(rows, inputs, outputs);
    }
}

/// One product by a given instruction set, whatever this machine would choose.
fn by<S: pulp::Simd, const ROWS: usize>(simd: S, rows: usize, inputs: usize, outputs: usize) {
    let what = format!("{} lanes, {rows}x{inputs}x{outputs}", S::F32_LANES);
    let (left, weight) = (numbers(rows * inputs, 8), numbers(outputs * inputs, 9));
    let row = numbers(outputs, 10);
    let mut panels = Panels::<f32>::with_lanes(S::F32_LANES, inputs, outputs);
    panels.fill(|input, output| weight[output * inputs + input]);
    let mut got = vec![f32::NAN; rows * outputs];
    let job = tile::Job {
        output: &mut got,
        stride: outputs,
        start: Start::Row(&row),
        left: Rows::new(&left, rows, inputs),
        right: &panels.all(),
    };
    job.run::<_, ROWS>(lanes::FloatLanes(simd));
    for (at, got) in got.iter().enumerate() {
        let (i, j) = (at / outputs, at % outputs);
        let sum: f32 = (0..inputs)
            .map(|k| left[i * inputs + k] * weight[j * inputs + k])
            .sum();
        let wanted = row[j] + sum;
        let apart = (got - wanted).abs();
        assert!(
            apart <= 1e-4 * wanted.abs().max(inputs as f32),
            "{what} at {i}, {j}: {got} for {wanted}"
        );
    }
}

#[test]
fn every_instruction_set_multiplies_alike() {
    for (rows, inputs, outputs) in SIZES {
        by::<_, 4>(pulp::Scalar::new(), rows, inputs, outputs);
        #[cfg(target_arch = "x86_64")]
        match pulp::x86::V3::try_new() {
            Some(simd) => by::<_, 4>(simd, rows, inputs, outputs),
            None => println!("SKIPPED: this processor has no AVX2"),
        }
        #[cfg(target_arch = "aarch64")]
        match pulp::aarch64::Neon::try_new() {
            Some(simd) => by::<_, 8>(simd, rows, inputs, outputs),
            None => println!("SKIPPED: this processor has no NEON"),
        }
    }
}

#[test]
fn bfloat_products_equal_their_definition() {
    if let Err(error) = bf16::lanes() {
        println!("SKIPPED: {error}");
        return;
    }
    for (rows, inputs, outputs) in SIZES {
        holds::<bf16>(rows, inputs, outputs);
    }
}

#[test]
fn parts_add_up_to_the_whole() {
    let (rows, inputs, outputs) = (11, 300, 130);
    let left = numbers(rows * inputs, 4);
    let panels = Panels::<f32>::of_weight(&numbers(outputs * inputs, 5), outputs, inputs).unwrap();
    let mut whole = vec![0.0; rows * outputs];
    let of = |data| Rows::new(data, rows, inputs);
    product(&mut whole, outputs, Start::Zero, of(&left), &panels.all()).unwrap();
    let mut parts = vec![0.0; rows * outputs];
    let width = panels.panel_width();
    for inputs in [0..96, 96..300] {
        for outputs_now in [0..width, width..outputs] {
            let start = if inputs.start == 0 {
                Start::Zero
            } else {
                Start::Output
            };
            let (first, left) = (outputs_now.start, &left[inputs.start..]);
            let part = panels.all().inputs(inputs.clone()).outputs(outputs_now);
            product(&mut parts[first..], outputs, start, of(left), &part).unwrap();
        }
    }
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(300.0));
    }
}

#[test]
fn columns_and_rows_land_where_a_weight_would() {
    fn check<N: Number + PartialEq>(inputs: usize, outputs: usize) {
        let weight = numbers(inputs * outputs, 6);
        let wanted = Panels::<N>::of_weight(&weight, outputs, inputs).unwrap();
        let at = |input: usize, output: usize| N::of(weight[output * inputs + input]);
        let mut columns = Panels::<N>::zeros(inputs, outputs).unwrap();
        for output in 0..outputs {
            let values: Vec<N> = (0..inputs).map(|input| at(input, output)).collect();
            columns.set_column(output, &values).unwrap();
        }
        let mut rows = Panels::<N>::zeros(inputs + 40, outputs + 40).unwrap();
        rows.fill(|_, _| N::of(9.0));
        rows.reshape(inputs, outputs);
        for input in 0..inputs {
            let values: Vec<N> = (0..outputs).map(|output| at(input, output)).collect();
            rows.set_row(input, &values).unwrap();
        }
        let length = wanted.data.len();
        assert!(columns.data == wanted.data, "{} {inputs}x{outputs}", N::NAME);
        assert!(
            rows.data[..length] == wanted.data[..],
            "{} {inputs}x{outputs}",
            N::NAME
        );
    }
    for (inputs, outputs) in [(1, 1), (4, 16), (7, 50), (64, 196), (31, 48)] {
        check::<f32>(inputs, outputs);
        if bf16::lanes().is_ok() {
            check::<bf16>(inputs, outputs);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let panels = Panels::<f32>::of_weight(&[1.0; 6], 2, 3).unwrap();
    let mut output = [0.0; 4];
    let data = [1.0; 6];
    let run = |output: &mut [f32], rows, stride, part| {
        product(output, 2, Start::Zero, Rows::new(&data, rows, stride), &part)
    };
    assert!(run(&mut output, 2, 3, panels.all()).is_ok());
    assert!(
        run(&mut output, 3, 2, panels.all()).is_err(),
        "rows narrower than the inputs"
    );
    assert!(
        run(&mut output, 2, 4, panels.all()).is_err(),
        "rows beyond their data"
    );
    assert!(
        run(&mut output[..3], 2, 3, panels.all()).is_err(),
        "output too short"
    );
    assert!(
        run(&mut output, 2, 3, panels.all().outputs(1..2)).is_err(),
        "half a panel"
    );
    assert!(
        run(&mut output, 2, 3, panels.all().inputs(0..4)).is_err(),
        "no such input"
    );
    assert!(
        run(&mut output, usize::MAX / 2 + 2, 3, panels.all()).is_err(),
        "rows beyond all memory"
    );
    let mut row = [7.0; 2];
    let none = panels.all().inputs(1..1);
    product(&mut row, 2, Start::Zero, Rows::new(&data[1..], 1, 3), &none).unwrap();
    assert_eq!(row, [0.0; 2], "no inputs: what it begins with");
    let short = product(
        &mut output,
        2,
        Start::Row(&[1.0]),
        Rows::new(&data, 2, 3),
        &panels.all(),
    );
    assert!(short.is_err(), "a row too short");
    assert!(Panels::<f32>::of_weight(&[1.0; 5], 2, 3).is_err());
}
