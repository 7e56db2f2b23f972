"""The text of a model in the format of ONNX: its outputs, and the functions that its nodes call.

A function with the name of a class is a layer of `models.tabular`, whose parameters are its last inputs. A function
with the name of a part of `cells.columns` reads an input. Constants that have a name there are equal to those.

Shapes: B rows, F folds, K members, N columns, Q slots of a code, R features, O outputs, T trees of an output.
"""

OUTPUTS = {  # N rows, C classes or labels
    "classification": "string[N] label, float[N, C] probabilities",
    "multi_label": "int64[N, C] label, float[N, C] probabilities",
    "regression": "double[N, C] value",
}
MODEL = """
<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3], producer_name: "mlxlab">
table () => (OUTPUTS) {}

function floor_divide (x, y) => (quotient) {
    ratio = Div (x, y)
    quotient = Floor (ratio)
}

function remainder (x, y) => (rest) {
    quotient = mlxlab.floor_divide (x, y)
    product = Mul (quotient, y)
    rest = Sub (x, product)
}

function value (numbers) => (same) {
    same = Identity (numbers)
}

function day (seconds) => (days) {
    seconds_per_day = Constant <value = double {86400.0}> ()
    days = Div (seconds, seconds_per_day)
}

function full_day (seconds) => (days) {
    seconds_per_day = Constant <value = double {86400.0}> ()
    whole = Floor (seconds)
    days = mlxlab.floor_divide (whole, seconds_per_day)
}

function hour (seconds) => (hours) {
    seconds_per_day = Constant <value = double {86400.0}> ()
    sixty = Constant <value = double {60.0}> ()
    whole = Floor (seconds)
    second_of_day = mlxlab.remainder (whole, seconds_per_day)
    minute_of_day = mlxlab.floor_divide (second_of_day, sixty)
    hour_of_day = mlxlab.floor_divide (minute_of_day, sixty)
    minute = mlxlab.remainder (minute_of_day, sixty)
    part_of_hour = Div (minute, sixty)
    hours = Add (hour_of_day, part_of_hour)
}

# Monday is 0; 1970 began on a Thursday.
function weekday (seconds) => (number) {
    three = Constant <value = double {3.0}> ()
    seven = Constant <value = double {7.0}> ()
    days = mlxlab.full_day (seconds)
    days_from_monday = Add (days, three)
    number = mlxlab.remainder (days_from_monday, seven)
}

# Eras of 400 years begin in March of the year 0: `civil_from_days` of Hinnant 2013.
function day_from_era (seconds) => (day) {
    days_to_1970 = Constant <value = double {719468.0}> ()
    days = mlxlab.full_day (seconds)
    day = Add (days, days_to_1970)
}

# A leap day is the last day of a year that begins in March.
function year_of_era (day) => (year) {
    days_per_century = Constant <value = double {36524.0}> ()
    days_per_four_years = Constant <value = double {1460.0}> ()
    days_per_year = Constant <value = double {365.0}> ()
    last_day = Constant <value = double {146096.0}> ()
    leap_days = mlxlab.floor_divide (day, days_per_four_years)
    skipped = mlxlab.floor_divide (day, days_per_century)
    last = mlxlab.floor_divide (day, last_day)
    without_leap_days = Sub (day, leap_days)
    with_skipped = Add (without_leap_days, skipped)
    without_last = Sub (with_skipped, last)
    year = mlxlab.floor_divide (without_last, days_per_year)
}

# From March and from August five months have 153 days.
function month_from_march (day) => (month) {
    days_per_year = Constant <value = double {365.0}> ()
    four = Constant <value = double {4.0}> ()
    hundred = Constant <value = double {100.0}> ()
    two = Constant <value = double {2.0}> ()
    five = Constant <value = double {5.0}> ()
    days_of_five_months = Constant <value = double {153.0}> ()
    year = mlxlab.year_of_era (day)
    days_of_years = Mul (year, days_per_year)
    leap_days = mlxlab.floor_divide (year, four)
    skipped = mlxlab.floor_divide (year, hundred)
    with_leap_days = Add (days_of_years, leap_days)
    past_days = Sub (with_leap_days, skipped)
    day_of_year = Sub (day, past_days)
    fifths = Mul (day_of_year, five)
    shifted = Add (fifths, two)
    month = mlxlab.floor_divide (shifted, days_of_five_months)
}

function year (seconds) => (number) {
    days_per_era = Constant <value = double {146097.0}> ()
    years_per_era = Constant <value = double {400.0}> ()
    ten = Constant <value = double {10.0}> ()
    days = mlxlab.day_from_era (seconds)
    era = mlxlab.floor_divide (days, days_per_era)
    day = mlxlab.remainder (days, days_per_era)
    year = mlxlab.year_of_era (day)
    month = mlxlab.month_from_march (day)
    is_january_or_february = mlxlab.floor_divide (month, ten)
    years_before = Mul (era, years_per_era)
    year_from_march = Add (years_before, year)
    number = Add (year_from_march, is_january_or_february)
}

function month (seconds) => (number) {
    days_per_era = Constant <value = double {146097.0}> ()
    two = Constant <value = double {2.0}> ()
    one = Constant <value = double {1.0}> ()
    twelve = Constant <value = double {12.0}> ()
    days = mlxlab.day_from_era (seconds)
    day = mlxlab.remainder (days, days_per_era)
    month = mlxlab.month_from_march (day)
    month_from_january = Add (month, two)
    month_of_year = mlxlab.remainder (month_from_january, twelve)
    number = Add (month_of_year, one)
}

function boolean (cells) => (categories) {
    yes = Constant <value_string = "True"> ()
    no = Constant <value_string = "False"> ()
    missing = Constant <value_string = ""> ()
    is_true = Cast <to = 9> (cells)
    known = Where (is_true, yes, no)
    is_missing = IsNaN (cells)
    categories = Where (is_missing, missing, known)
}

function category (codes) => (numbers) {
    numbers = Cast <to = 11> (codes)
}

# Not every runtime lets NaN pass a limit.
function cells (amounts, medians_and_scales) => (cells) {
    by_column = Transpose (medians_and_scales)
    median, scale = Split (by_column)
    limit = Constant <value = double {1000000.0}> ()
    centered = Sub (amounts, median)
    scaled = Div (centered, scale)
    lowest = Neg (limit)
    from_lowest = Max (scaled, lowest)
    limited = Min (from_lowest, limit)
    is_missing = IsNaN (scaled)
    known = Where (is_missing, scaled, limited)
    cells = Cast <to = 1> (known)
}

function columns (cells, indices) => (chosen) {
    chosen = Gather <axis = 1> (cells, indices)
}

function known (cells) => (numbers) {
    zero = Constant <value_float = 0.0> ()
    is_missing = IsNaN (cells)
    numbers = Where (is_missing, zero, cells)
}

function number_values (cells, mean, deviation) => (values) {
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    soft_limit = Constant <value_float = 3.0> ()
    numbers = mlxlab.known (cells)
    ratio = Div (numbers, soft_limit)
    square = Mul (ratio, ratio)
    sum = Add (one, square)
    root = Sqrt (sum)
    squeezed = Div (numbers, root)
    centered = Sub (squeezed, mean)
    scaled = Div (centered, deviation)
    is_missing = IsNaN (cells)
    values = Where (is_missing, zero, scaled)
}

function number_flags (cells, flagged) => (flags) {
    some_cells = Gather <axis = 1> (cells, flagged)
    is_missing = IsNaN (some_cells)
    flags = Cast <to = 1> (is_missing)
}

function number_code (row, lower, width, least, most) => (code) {
    zero = Constant <value_float = 0.0> ()
    last = Constant <value_ints = [2]> ()
    cells = Unsqueeze (row, last)
    numbers = mlxlab.known (cells)
    above = Sub (numbers, lower)
    bins = Div (above, width)
    from_least = Max (bins, least)
    limited = Min (from_least, most)
    is_missing = IsNaN (cells)
    slots = Where (is_missing, zero, limited)
    flag = Cast <to = 1> (is_missing)
    code = Concat <axis = 2> (slots, flag)
}

function category_code (row, slots) => (code) {
    last = Constant <value_ints = [2]> ()
    cells = Unsqueeze (row, last)
    numbers_of_slots = Cast <to = 1> (slots)
    is_equal = Equal (cells, numbers_of_slots)
    is_missing = IsNaN (cells)
    one_hot = Cast <to = 1> (is_equal)
    flag = Cast <to = 1> (is_missing)
    code = Concat <axis = 2> (one_hot, flag)
}

function category_features (code, chosen) => (features) {
    flat_shape = Constant <value_ints = [0, -1]> ()
    flat = Reshape (code, flat_shape)
    features = Gather <axis = 1> (flat, chosen)
}

function CodeEmbedding (code, weight, bias) => (hidden) {
    flat_shape = Constant <value_ints = [0, 0, -1]> ()
    by_column = Transpose <perm = [1, 0, 2]> (code)
    product = MatMul (by_column, weight)
    by_row = Transpose <perm = [0, 2, 1, 3]> (product)
    sum = Add (by_row, bias)
    positive = Relu (sum)
    hidden = Reshape (positive, flat_shape)
}

# The features once for each fold; the first size of the signs is that of folds.
function repeat (features, signs) => (repeated) {
    ones = Constant <value_ints = [1, 1]> ()
    folds = Shape <end = 1> (signs)
    shape = Concat <axis = 0> (folds, ones)
    repeated = Expand (features, shape)
}

function members (x, signs) => (signed) {
    second = Constant <value_ints = [1]> ()
    shared = Unsqueeze (x, second)
    signed = Mul (shared, signs)
}

function MemberLayer (x, weight, scale, bias) => (hidden) {
    second = Constant <value_ints = [1]> ()
    shared = Unsqueeze (weight, second)
    product = MatMul (x, shared)
    scaled = Mul (product, scale)
    sum = Add (scaled, bias)
    hidden = Relu (sum)
}

function LinearReader (x, weight, bias) => (logits) {
    product = MatMul (x, weight)
    logits = Add (product, bias)
}

# A node of the trees of an output is numbered on from tree to tree.
function TreeReader (features, feature, threshold, left, right, value, bias) => (logits) {
    zero = Constant <value_int = 0> ()
    last = Constant <value_ints = [2]> ()
    flat = Constant <value_ints = [-1]> ()
    column_shape = Constant <value_ints = [-1, 1]> ()
    outputs_and_trees = Shape <start = 0, end = 2> (value)
    nodes_per_tree = Shape <start = 2> (value)
    num_trees = ReduceProd <keepdims = 0> (outputs_and_trees)
    num_nodes = Squeeze (nodes_per_tree)
    end = Mul (num_trees, num_nodes)
    roots = Range (zero, end, num_nodes)
    root_column = Reshape (roots, column_shape)

    tree_shape = Concat <axis = 0> (flat, nodes_per_tree)
    left_of_tree = Reshape (left, tree_shape)
    right_of_tree = Reshape (right, tree_shape)
    left_integer = Cast <to = 7> (left_of_tree)
    right_integer = Cast <to = 7> (right_of_tree)
    left_node = Add (left_integer, root_column)
    right_node = Add (right_integer, root_column)
    all_left = Reshape (left_node, flat)
    all_right = Reshape (right_node, flat)
    all_features = Reshape (feature, flat)
    feature_integer = Cast <to = 7> (all_features)
    all_thresholds = Reshape (threshold, flat)
    all_values = Reshape (value, flat)

    rows = Shape <end = 1> (features)
    one = Constant <value_ints = [1]> ()
    roots_shape = Concat <axis = 0> (rows, one)
    node_0 = Expand (roots, roots_shape)
    node_1 = mlxlab.tree_step (features, node_0, feature_integer, all_thresholds, all_left, all_right)
    node_2 = mlxlab.tree_step (features, node_1, feature_integer, all_thresholds, all_left, all_right)
    node_3 = mlxlab.tree_step (features, node_2, feature_integer, all_thresholds, all_left, all_right)
    node_4 = mlxlab.tree_step (features, node_3, feature_integer, all_thresholds, all_left, all_right)
    node_5 = mlxlab.tree_step (features, node_4, feature_integer, all_thresholds, all_left, all_right)
    node_6 = mlxlab.tree_step (features, node_5, feature_integer, all_thresholds, all_left, all_right)
    node_7 = mlxlab.tree_step (features, node_6, feature_integer, all_thresholds, all_left, all_right)
    leaves = Gather (all_values, node_7)
    value_shape = Concat <axis = 0> (rows, outputs_and_trees)
    values = Reshape (leaves, value_shape)
    sum = ReduceSum <keepdims = 0> (values, last)
    logits = Add (sum, bias)
}

function tree_step (features, node, feature, threshold, left, right) => (next) {
    index = Gather (feature, node)
    cell = GatherElements <axis = 1> (features, index)
    limit = Gather (threshold, node)
    goes_right = Greater (cell, limit)
    if_right = Gather (right, node)
    if_left = Gather (left, node)
    next = Where (goes_right, if_right, if_left)
}

function log (outputs) => (logs) {
    min_probability = Constant <value_float = 1e-30> ()
    positive = Max (outputs, min_probability)
    logs = Log (positive)
}

function log_odds (outputs) => (logits) {
    one = Constant <value_float = 1.0> ()
    others = Sub (one, outputs)
    log_outputs = mlxlab.log (outputs)
    log_others = mlxlab.log (others)
    logits = Sub (log_outputs, log_others)
}

# The mean of the members of all folds; a reader that is no network has one.
function mean (outputs) => (mean) {
    rows_and_outputs = Shape <start = -2> (outputs)
    any_number = Constant <value_ints = [-1]> ()
    shape = Concat <axis = 0> (any_number, rows_and_outputs)
    of_members = Reshape (outputs, shape)
    mean = ReduceMean <axes = [0], keepdims = 0> (of_members)
}

function classification_part (logits, share_and_sharpness) => (part) {
    share, sharpness = Split (share_and_sharpness)
    all_outputs = Softmax <axis = -1> (logits)
    outputs = mlxlab.mean (all_outputs)
    log_outputs = mlxlab.log (outputs)
    sharp_logits = Mul (log_outputs, sharpness)
    sharp = Softmax <axis = -1> (sharp_logits)
    part = Mul (sharp, share)
}

function multi_label_part (logits, share_and_sharpness) => (part) {
    share, sharpness = Split (share_and_sharpness)
    all_outputs = Sigmoid (logits)
    outputs = mlxlab.mean (all_outputs)
    mean_logits = mlxlab.log_odds (outputs)
    sharp_logits = Mul (mean_logits, sharpness)
    sharp = Sigmoid (sharp_logits)
    part = Mul (sharp, share)
}

function regression_part (logits, share_and_sharpness) => (part) {
    share, unused = Split (share_and_sharpness)
    outputs = mlxlab.mean (logits)
    part = Mul (outputs, share)
}

function classification_answer (mixture, names, limits) => (label, probabilities) {
    logits = mlxlab.log (mixture)
    probabilities = Softmax <axis = -1> (logits)
    multiples = Div (probabilities, limits)
    best = ArgMax <axis = 1, keepdims = 0> (multiples)
    label = Gather (names, best)
}

function multi_label_answer (mixture, thresholds) => (label, probabilities) {
    logits = mlxlab.log_odds (mixture)
    probabilities = Sigmoid (logits)
    holds = GreaterOrEqual (probabilities, thresholds)
    label = Cast <to = 7> (holds)
}

function regression_answer (mixture, mean_and_deviation) => (value) {
    mean, deviation = Split (mean_and_deviation)
    numbers = Cast <to = 11> (mixture)
    scaled = Mul (numbers, deviation)
    value = Add (scaled, mean)
}
""".replace("function ", """<domain: "mlxlab", opset_import: ["": 17, "mlxlab": 1]> """)
