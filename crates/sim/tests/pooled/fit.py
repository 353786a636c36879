"""Fits regressions on pooled rows with statsmodels and lifelines, for comparison with federated ones.

Reads cases as JSON from the standard input, each with the CSV files of its sites; writes what both libraries find.
Nothing here is part of the product, and nothing of the product is used here.
"""

import json
import sys

import numpy as np
import pandas as pd
import statsmodels.api as sm
from lifelines import CoxPHFitter
from statsmodels.duration.hazard_regression import PHReg


def rows(case):
    """All rows of all sites without those that miss something, with the site beside them."""
    needed = case["features"] + [c for c in (case["label"], case.get("time"), case.get("offset"), case.get("weights")) if c]
    tables = [pd.read_csv(path, na_values="?").assign(site=name) for name, path in case["sites"].items()]
    return pd.concat(tables, ignore_index=True).dropna(subset=needed).reset_index(drop=True)


def table(names, estimates, errors, p, intervals):
    intervals = np.asarray(intervals)
    return {
        name: {"estimate": float(b), "error": float(e), "p": float(q), "low": float(lo), "high": float(hi)}
        for name, b, e, q, lo, hi in zip(names, estimates, errors, p, intervals[:, 0], intervals[:, 1])
    }


def glm(case):
    data = rows(case)
    y = data[case["label"]].astype(float)
    if "above" in case:
        y = (y > case["above"]).astype(float)
    x = data[case["features"]].astype(float)
    if case.get("intercept", True):
        x = sm.add_constant(x, has_constant="add")
    names = ["(intercept)" if name == "const" else name for name in x.columns]
    family = {"gaussian": sm.families.Gaussian(), "binomial": sm.families.Binomial(), "poisson": sm.families.Poisson()}
    weights = data[case["weights"]] if case.get("weights") else np.ones(len(data))
    offset = data[case["offset"]] if case.get("offset") else np.zeros(len(data))
    model = sm.GLM(y, x, family=family[case["family"]], offset=offset, var_weights=weights)
    fit = model.fit(tol=1e-14, maxiter=200, use_t=case["family"] == "gaussian")
    null_deviance = fit.null_deviance
    if not case.get("intercept", True):
        # The model without features has then no intercept either, as in R; that of statsmodels always has one.
        null_deviance = model.family.deviance(y, model.family.link.inverse(offset), var_weights=weights)
    # The model without features: with an intercept if the other has one. Its variance is the one that fits best.
    if case.get("intercept", True):
        null = sm.GLM(y, np.ones(len(y)), family=family[case["family"]], offset=offset, var_weights=weights)
        null_mean = null.fit(tol=1e-14, maxiter=200).fittedvalues
    else:
        null_mean = model.family.link.inverse(offset)
    null_scale = float((weights * (y - null_mean) ** 2).mean()) if case["family"] == "gaussian" else 1.0
    return {
        "coefficients": table(names, fit.params, fit.bse, fit.pvalues, fit.conf_int(0.05)),
        "n": float(fit.nobs),
        "log_likelihood": float(fit.llf),
        "null_log_likelihood": float(model.family.loglike(y, null_mean, var_weights=weights, scale=null_scale)),
        # R counts the variance of a gaussian model as a parameter, statsmodels does not.
        "aic": float(fit.aic) + (2.0 if case["family"] == "gaussian" else 0.0),
        "deviance": float(fit.deviance),
        "null_deviance": float(null_deviance),
        "pearson": float(fit.pearson_chi2),
        "dispersion": float(fit.scale),
        "residual_degrees": float(fit.df_resid),
    }


def hazards(data, case, predictors):
    """Events over time at risk in each interval, the first with its beginning, by counting, at given coefficients."""
    width, found = case["grid"]["width"], []
    for start in (width * i for i in range(case["grid"]["intervals"])):
        inside = np.clip(data[case["time"]] - start, 0.0, width)
        after = (data[case["time"]] > start) | (data[case["time"]] == 0) & (start == 0)
        last = after & (data[case["time"]] <= start + width)
        found.append(float((data[case["label"]] * last).sum() / (inside * np.exp(predictors)).sum()))
    return found


def concordance(data, case, predictors):
    """Harrell's C over pairs of rows of one site, by counting: of a pair that can be compared one row had the event while
    the other was still watched."""
    right, pairs = 0.0, 0.0
    # The same values in other rows can come out otherwise in the last digit.
    for _, site in data.assign(risk=np.round(predictors, 10)).groupby("site"):
        time, event, risk = (site[column].to_numpy() for column in (case["time"], case["label"], "risk"))
        known = (event[:, None] == 1) & ((time[:, None] < time) | (time[:, None] == time) & (event == 0))
        right += (known & (risk[:, None] > risk)).sum() + 0.5 * (known & (risk[:, None] == risk)).sum()
        pairs += known.sum()
    return float(right / pairs)


def cox(case):
    data = rows(case)
    x, names = data[case["features"]].astype(float), case["features"]
    ties = case["ties"] or "efron"
    model = PHReg(data[case["time"]], x, status=data[case["label"]], strata=data["site"], ties=ties)
    fit = model.fit(method="newton", maxiter=200, tol=1e-14, disp=0)
    predictors = x.to_numpy() @ fit.params
    found = {
        "statsmodels": {
            "coefficients": table(names, fit.params, fit.bse, fit.pvalues, fit.conf_int(0.05)),
            "log_likelihood": float(fit.llf),
            "null_log_likelihood": float(model.loglike(np.zeros(len(names)))),
            "aic": -2.0 * float(fit.llf) + 2.0 * len(names),
            "concordance": concordance(data, case, predictors),
            "events": float(data[case["label"]].sum()),
        }
    }
    if case["grid"]:
        of = hazards(data, case, predictors)
        found["statsmodels"]["hazards"] = {str(i): hazard for i, hazard in enumerate(of)}
    if ties == "efron":
        fitter = CoxPHFitter(alpha=0.05)
        columns = names + [case["time"], case["label"], "site"]
        options = {"precision": 1e-12, "r_precision": 1e-14}
        fitter.fit(data[columns], case["time"], case["label"], strata=["site"], fit_options=options)
        of = fitter.summary
        intervals = of[["coef lower 95%", "coef upper 95%"]].to_numpy()
        found["lifelines"] = {
            "coefficients": table(names, of["coef"], of["se(coef)"], of["p"], intervals),
            "log_likelihood": float(fitter.log_likelihood_),
            "concordance": float(fitter.concordance_index_),
            "aic": float(fitter.AIC_partial_),
        }
    return found


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    json.dump({case["name"]: (cox if case.get("time") else glm)(case) for case in cases}, sys.stdout, indent=1)
    sys.stdout.write("\n")
