"""The executors: `local` runs a pipeline's IR here, `kfp` submits it to Kubeflow Pipelines."""
