#pragma once
// The settings that steer a run: learning rate and weight decay, the guard against spikes, the router's
// losses. Declared and checked here for train_config.cc.

#include "config/train_config.h"

namespace farskip {

/// Declare the sections "Optimiser", "Guard" and "Router".
void add_optimiser(Settings& table, TrainConfig& config);
void add_guard(Settings& table, TrainConfig& config);
void add_router(Settings& table, TrainConfig& config);

/// Throw Error for contradictions between settings, with their places.
void check_optimiser(const Settings& table, const TrainConfig& config);
void check_guard(const Settings& table, const TrainConfig& config);

}  // namespace farskip
