"""Preprocess kind "ranking": who asks and which candidates in, the best of them out.

`spec` is what the package says (which features, how fresh, what where there are none), `wire` how a feature server is asked,
`cache` and `features` bring features here once, `matrix` makes the model's rows of them, `scoring` asks the model server and
keeps the best, `request` and `answer` speak the inference protocol, `endpoint` ties them to the door. `stub` is a feature server
over Parquet files.
"""
