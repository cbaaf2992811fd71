"""Synthetic data of people with exact labels: evaluation sets of faces, and bodies for pose regressors.

`ipse.synth.sig` makes and audits balanced face sets, `ipse.synth.bedlam` yields labeled bodies and `ipse.synth.hmr`
learns from them. Each is imported when it is used.
"""
