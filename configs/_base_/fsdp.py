# FSDP: trained weights, gradients and optimizer state spread over the GPUs. Add to a run's _base_.
runner_type = 'FlexibleRunner'
# shard_size=8 keeps a whole copy within each machine of 8 GPUs; None spreads it over all of them.
strategy = dict(type='FullyShardedStrategy', shard_size=None)
