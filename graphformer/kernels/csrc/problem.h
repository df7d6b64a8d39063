// What Python hands over: plain sizes and pointers. Mirrored, field by field, by `_Problem` in native.py.
#pragma once
#include <cstdint>

enum InputType : int32_t { kFloat32, kFloat64, kBFloat16, kFloat16 };
enum Score : int32_t { kDot, kLeakyRelu, kTanh };
enum Normalizer : int32_t { kSoftmax, kRelu, kSigmoid };

// Letters: N queries, M keys, E edges, H heads, D width, V value width, R relations, F edge features. "real" is float,
// or double for float64 inputs. Pointers that a problem does not need are null.
struct Problem {
    int64_t num_queries, num_keys, num_edges;
    int32_t heads, width, value_width, num_relations, num_features, num_chunks;
    int32_t input_type, score, normalizer, threads, has_dropout, wide_index, wide_id;
    double scale, slope, dropout;
    uint64_t seed;

    // rows by query and by key; an id array that is null means that the id is the position
    const int64_t *query_ptr, *key_ptr;
    const void *key_index, *query_index;  // [E] int32, or int64 where wide_index
    const void *edge_id, *key_edge_id;    // [E] int32, or int64 where wide_id
    const int32_t *relation;              // [E] by edge id
    // windows of 32 rows served by tiles, by query and by key: see graphs/tiles.py; null where there are none
    const int64_t *query_tile_ptr, *key_tile_ptr;
    const int32_t *query_tiles, *key_tiles;
    // or, instead of the indices: rows as runs [start, stop) of the other end, the ids the positions by query
    const int64_t *query_run_ptr, *query_run_start, *query_run_stop;
    const int64_t *key_run_ptr, *key_run_start, *key_run_stop;
    const int64_t *query_run_shift;  // what ids exceed keys by in each run by query; only where runs by key need ids

    const void *query, *key, *value, *grad_out;  // [N, H, D], [M, H, D], [M, H, V], [N, H, V] in the input type
    // real, by edge id where they are by edge
    const void *weight;                                        // [H, D]
    const void *bias;                                          // [E, H]
    const void *relation_bias, *relation_key, *relation_value; // [R, H], [R, H, D], [R, H, V]
    const void *edge_attr;                                     // [E, F]
    const void *edge_query;  // [N, H, F]: query . edge_key, dot score
    const void *edge_key;    // [F, H, D], additive score; comes without tiles
    const void *edge_grad;   // [N, H, F]: grad_out . edge_value

    // outputs, real; every element is written
    void *out, *statistic, *edge_sum;  // [N, H, V], [N, H], [N, H, F] = sum of P a
    void *delta;                       // [N, 2, H]: statistic and delta, side by side for the pass by key
    const void *total;  // [N, H, V], real: the result of the forward pass, where it was not rounded to half precision
    void *grad_query, *grad_key, *grad_value;     // [N, H, D], [M, H, D], [M, H, V]
    void *grad_edge_query;                        // [N, H, F]
    void *grad_bias, *grad_edge_attr;             // [E, H], [E, F] by edge id
    // one part for each chunk of rows, zeroed by the caller: [num_chunks, ...]
    void *grad_weight, *grad_relation_bias, *grad_relation_key, *grad_relation_value, *grad_edge_key;
};
