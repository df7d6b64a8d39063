// A program that runs the loops through their C interface over degenerate and random problems, for sanitizers and
// valgrind: no Python inside, every array of exactly its size. It also holds the results against each other: gradients
// against differences of the result in float64, every type and instruction set against float64, and any number of
// threads bit for bit.
// Usage: check_kernel [most threads]; it returns 1 where something is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "problem.h"

extern "C" {
const char *gf_instruction_set();
int32_t gf_forward(const Problem *);
int32_t gf_backward(const Problem *);
int64_t gf_count_tiles(const int64_t *, const void *, const void *, int32_t, int64_t, double, int32_t, int64_t *);
void gf_fill_tiles(const int64_t *, const void *, const void *, int32_t, int64_t, int32_t, const int64_t *, void *);
}

namespace gf_baseline {
void forward(const Problem &);
void backward(const Problem &);
}  // namespace gf_baseline
#ifdef GF_X86
namespace gf_avx2 {
void forward(const Problem &);
void backward(const Problem &);
}  // namespace gf_avx2
#endif

namespace {

using Numbers = std::vector<double>;
using Arrays = std::map<std::string, Numbers>;
std::mt19937 random_bits(1);

int64_t below(int64_t n) { return int64_t(random_bits() % uint64_t(n)); }

struct Case {
    std::string name;
    int64_t num_queries, num_keys;
    int heads, width, value_width, relations, features;
    Score score;
    Normalizer normalizer;
    bool has_bias, removes, has_dropout, is_wide;
    std::vector<std::pair<int64_t, int64_t>> pairs;  // query and key, by edge id
    bool is_tiled = false;                           // all windows by tiles, else all row by row
    bool in_runs = false;                            // pairs in runs, else one by one; they are sorted, each once
};

// What is checked: the C interface, which takes the best instruction set here, and the sets below it.
struct Loops {
    const char *name;
    void (*forward)(const Problem &), (*backward)(const Problem &);
};

std::vector<Loops> all_loops() {
    const auto forward = [](const Problem &p) { gf_forward(&p); };
    const auto backward = [](const Problem &p) { gf_backward(&p); };
    std::vector<Loops> all{{"chosen", forward, backward}, {"baseline", gf_baseline::forward, gf_baseline::backward}};
#ifdef GF_X86
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        all.push_back({"avx2", gf_avx2::forward, gf_avx2::backward});
#endif
    return all;
}

// ---------------------------------------------------------------- problems

// Multiples of 1/8 below 1: the same number in every type.
Numbers draw(int64_t size) {
    Numbers numbers(size);
    for (double &x : numbers) x = double(below(15) - 7) / 8;
    return numbers;
}

Arrays draw_inputs(const Case &c) {
    const int64_t N = c.num_queries, M = c.num_keys, E = int64_t(c.pairs.size()), H = c.heads;
    const int64_t R = c.relations, F = c.features;
    Arrays inputs{{"query", draw(N * H * c.width)}, {"key", draw(M * H * c.width)}};
    inputs["value"] = draw(M * H * c.value_width);
    if (c.score != kDot) inputs["weight"] = draw(H * c.width);
    if (c.has_bias) inputs["bias"] = draw(E * H);
    for (double &x : inputs["bias"])
        if (c.removes && below(3) == 0) x = -std::numeric_limits<double>::infinity();
    if (!c.has_bias) inputs.erase("bias");
    if (R) {
        inputs["relation_bias"] = draw(R * H);
        inputs["relation_key"] = draw(R * H * c.width);
        inputs["relation_value"] = draw(R * H * c.value_width);
    }
    if (F) {
        inputs["edge_attr"] = draw(E * F);
        if (c.score == kDot) inputs["edge_query"] = draw(N * H * F);
        else inputs["edge_key"] = draw(F * H * c.width);
    }
    return inputs;
}

// The pairs sorted by one side: offsets, the other side, and the edge ids.
struct Side {
    std::vector<int64_t> ptr, other, id;
    Side(const Case &c, bool by_query) : ptr((by_query ? c.num_queries : c.num_keys) + 1, 0), id(c.pairs.size()) {
        const auto row = [&](int64_t e) { return by_query ? c.pairs[e].first : c.pairs[e].second; };
        const auto other_of = [&](int64_t e) { return by_query ? c.pairs[e].second : c.pairs[e].first; };
        std::iota(id.begin(), id.end(), int64_t(0));
        const auto place = [&](int64_t e) { return std::pair(row(e), other_of(e)); };
        std::stable_sort(id.begin(), id.end(), [&](int64_t a, int64_t b) { return place(a) < place(b); });
        for (int64_t e : id) {
            ptr[row(e) + 1]++;
            other.push_back(other_of(e));
        }
        std::partial_sum(ptr.begin(), ptr.end(), ptr.begin());
    }
};

uint16_t to_half(double x, InputType type) {
    uint16_t bits;
    if (type == kBFloat16) {
        const float single = float(x);
        std::memcpy(&bits, reinterpret_cast<const char *>(&single) + 2, 2);  // exact for what is drawn; little-endian
    } else {
        const _Float16 half = _Float16(x);
        std::memcpy(&bits, &half, 2);
    }
    return bits;
}

// A problem with all that it points to, every array by itself and of exactly its size.
class Call {
   public:
    Problem p{};

    Call(const Case &c, const Arrays &inputs, const Numbers &grad_out, const Numbers &edge_grad, InputType type,
         int threads)
        : case_(c), type_(type) {
        p.num_queries = c.num_queries, p.num_keys = c.num_keys, p.num_edges = int64_t(c.pairs.size());
        p.heads = c.heads, p.width = c.width, p.value_width = c.value_width;
        p.num_relations = c.relations, p.num_features = c.features, p.num_chunks = 5;
        p.input_type = type, p.score = c.score, p.normalizer = c.normalizer, p.threads = threads;
        p.has_dropout = c.has_dropout, p.dropout = c.has_dropout ? 0.3 : 0, p.seed = 7, p.scale = 0.5, p.slope = 0.25;
        set_graph();
        p.query = nodes(inputs.at("query")), p.key = nodes(inputs.at("key")), p.value = nodes(inputs.at("value"));
        p.grad_out = nodes(grad_out);
        const auto optional = [&](const char *name) { return inputs.count(name) ? reals(inputs.at(name)) : nullptr; };
        p.weight = optional("weight"), p.bias = optional("bias"), p.relation_bias = optional("relation_bias");
        p.relation_key = optional("relation_key"), p.relation_value = optional("relation_value");
        p.edge_attr = optional("edge_attr"), p.edge_query = optional("edge_query"), p.edge_key = optional("edge_key");
        if (c.features) p.edge_grad = reals(edge_grad);
    }

    // All results by name; tables summed over the chunks.
    Arrays run(const Loops &loops) {
        const int64_t N = p.num_queries, M = p.num_keys, E = p.num_edges, H = p.heads, D = p.width, V = p.value_width;
        const int64_t R = p.num_relations, F = p.num_features;
        p.out = output("out", N * H * V), p.statistic = output("statistic", N * H);
        if (F) p.edge_sum = output("edge_sum", N * H * F);
        loops.forward(p);
        if (p.edge_sum) read("edge_sum");
        p.edge_sum = nullptr;
        if (!F && !p.relation_value && (type_ == kFloat32 || type_ == kFloat64)) p.total = p.out;
        p.delta = output("delta", N * 2 * H);
        p.grad_query = output("query", N * H * D);
        p.grad_key = output("key", M * H * D), p.grad_value = output("value", M * H * V);
        if (p.bias) p.grad_bias = output("bias", E * H);
        if (F) p.grad_edge_attr = output("edge_attr", E * F), p.edge_sum = output("backward edge_sum", N * H * F);
        if (p.edge_query) p.grad_edge_query = output("edge_query", N * H * F);
        if (p.edge_key) p.grad_edge_key = output("edge_key", F * H * D, p.num_chunks);
        if (p.weight) p.grad_weight = output("weight", H * D, p.num_chunks);
        if (R) {
            p.grad_relation_bias = output("relation_bias", R * H, p.num_chunks);
            p.grad_relation_key = output("relation_key", R * H * D, p.num_chunks);
            p.grad_relation_value = output("relation_value", R * H * V, p.num_chunks);
        }
        loops.backward(p);
        for (const auto &[name, output] : outputs_)
            if (name != "delta" && name != "edge_sum") read(name);
        return results_;
    }

   private:
    struct Output {
        void *start;
        int64_t size, tables;
    };
    const Case &case_;
    InputType type_;
    std::vector<std::unique_ptr<char[]>> kept_;
    std::map<std::string, Output> outputs_;
    Arrays results_;

    template <class Element, class Convert>
    void *keep(const auto &numbers, Convert convert) {
        kept_.emplace_back(new char[numbers.size() * sizeof(Element)]);
        Element *start = reinterpret_cast<Element *>(kept_.back().get());
        std::transform(numbers.begin(), numbers.end(), start, convert);
        return start;
    }
    template <class Element>
    void *keep(const auto &numbers) {
        return keep<Element>(numbers, [](auto x) { return Element(x); });
    }
    void *reals(const Numbers &numbers) { return type_ == kFloat64 ? keep<double>(numbers) : keep<float>(numbers); }
    void *nodes(const Numbers &numbers) {
        if (type_ == kFloat32 || type_ == kFloat64) return reals(numbers);
        return keep<uint16_t>(numbers, [&](double x) { return to_half(x, type_); });
    }
    void *integers(const std::vector<int64_t> &numbers) {
        return case_.is_wide ? keep<int64_t>(numbers) : keep<int32_t>(numbers);
    }

    void set_graph() {
        const Side by_query(case_, true), by_key(case_, false);
        p.wide_index = p.wide_id = case_.is_wide;
        p.query_ptr = static_cast<int64_t *>(keep<int64_t>(by_query.ptr));
        p.key_ptr = static_cast<int64_t *>(keep<int64_t>(by_key.ptr));
        if (case_.in_runs) {
            set_runs(by_query, p.query_run_ptr, p.query_run_start, p.query_run_stop);
            set_runs(by_key, p.key_run_ptr, p.key_run_start, p.key_run_stop);
            std::vector<int64_t> shift;
            int64_t before = 0;
            for (int64_t run = 0; run < p.query_run_ptr[p.num_queries]; run++) {
                shift.push_back(before - p.query_run_start[run]);
                before += p.query_run_stop[run] - p.query_run_start[run];
            }
            p.query_run_shift = static_cast<int64_t *>(keep<int64_t>(shift));
        } else {
            p.key_index = integers(by_query.other), p.query_index = integers(by_key.other);
            p.edge_id = integers(by_query.id), p.key_edge_id = integers(by_key.id);
        }
        if (case_.is_tiled && !case_.pairs.empty() && !p.edge_key) {
            set_tiles(by_query, p.query_tile_ptr, p.query_tiles);
            set_tiles(by_key, p.key_tile_ptr, p.key_tiles);
        }
        std::vector<int64_t> relation(case_.pairs.size());
        for (size_t e = 0; e < relation.size(); e++) relation[e] = case_.relations ? int64_t(e) % case_.relations : 0;
        if (case_.relations) p.relation = static_cast<int32_t *>(keep<int32_t>(relation));
    }

    void set_runs(const Side &side, const int64_t *&run_ptr, const int64_t *&run_start, const int64_t *&run_stop) {
        std::vector<int64_t> ptr{0}, start, stop;
        for (size_t row = 0; row + 1 < side.ptr.size(); row++) {
            for (int64_t at = side.ptr[row]; at < side.ptr[row + 1]; at++) {
                const int64_t node = side.other[at];
                if (at > side.ptr[row] && stop.back() == node) stop.back()++;
                else start.push_back(node), stop.push_back(node + 1);
            }
            ptr.push_back(int64_t(start.size()));
        }
        run_ptr = static_cast<int64_t *>(keep<int64_t>(ptr));
        run_start = static_cast<int64_t *>(keep<int64_t>(start));
        run_stop = static_cast<int64_t *>(keep<int64_t>(stop));
    }

    void set_tiles(const Side &side, const int64_t *&tile_ptr, const int32_t *&tiles) {
        const int64_t rows = int64_t(side.ptr.size()) - 1, *ptr = side.ptr.data();
        std::vector<int64_t> windows((rows + 31) / 32 + 1);
        const int64_t count = gf_count_tiles(ptr, side.other.data(), nullptr, 1, rows, 1e-9, 1, windows.data());
        if (count == 0) return;
        std::vector<int32_t> segments(3 * count);
        gf_fill_tiles(ptr, side.other.data(), nullptr, 1, rows, 1, windows.data(), segments.data());
        tile_ptr = static_cast<int64_t *>(keep<int64_t>(windows));
        tiles = static_cast<int32_t *>(keep<int32_t>(segments));
    }

    // Full of NaN where the loops write every element; tables are zeroed by the caller.
    void *output(const std::string &name, int64_t size, int64_t tables = 0) {
        const double fill = tables ? 0 : std::numeric_limits<double>::quiet_NaN();
        void *start = reals(Numbers(size * std::max<int64_t>(tables, 1), fill));
        outputs_[name] = {start, size, std::max<int64_t>(tables, 1)};
        return start;
    }
    void read(const std::string &name) {
        const Output &output = outputs_[name];
        Numbers &numbers = results_[name] = Numbers(output.size, 0.0);
        for (int64_t k = 0; k < output.size * output.tables; k++)
            numbers[k % output.size] +=
                type_ == kFloat64 ? static_cast<double *>(output.start)[k] : static_cast<float *>(output.start)[k];
    }
};

// ---------------------------------------------------------------- comparisons

int failures = 0;

void expect(bool fact, const Case &c, const std::string &what) {
    if (fact) return;
    std::printf("FAILED %s: %s\n", c.name.c_str(), what.c_str());
    failures++;
}

double product(const Numbers &a, const Numbers &b) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); k++)
        if (std::isfinite(a[k]) && b[k] != 0) sum += a[k] * b[k];
    return sum;
}

bool are_close(const Numbers &a, const Numbers &b, double tolerance) {
    for (size_t k = 0; k < a.size(); k++)
        if (a[k] != b[k] && !(std::abs(a[k] - b[k]) <= tolerance * (1 + std::abs(b[k])))) return false;
    return a.size() == b.size();
}

// d loss along one random direction through all inputs, for loss = grad_out . out + edge_grad . edge_sum
void check_gradients(const Case &c, const Arrays &inputs, const Numbers &grad_out, const Numbers &edge_grad,
                     const Arrays &results) {
    const double step = 1e-6;
    double expected = 0, actual = 0, size = 1;
    Arrays moved[2] = {inputs, inputs};
    for (const auto &[name, numbers] : inputs) {
        Numbers direction = draw(int64_t(numbers.size()));
        for (double &x : direction) x += 1.0 / 16;
        for (size_t k = 0; k < numbers.size(); k++)
            for (int side = 0; side < 2; side++) moved[side][name][k] += (side ? step : -step) * direction[k];
        actual += product(results.at(name), direction);
        for (double x : results.at(name)) size += std::abs(x);
    }
    for (int side = 0; side < 2; side++) {
        const Arrays there = Call(c, moved[side], grad_out, edge_grad, kFloat64, 1).run(all_loops()[0]);
        double loss = product(there.at("out"), grad_out);
        if (c.features) loss += product(there.at("edge_sum"), edge_grad);
        expected += (side ? loss : -loss) / (2 * step);
    }
    expect(std::abs(actual - expected) <= 1e-5 * size, c,
           "gradients along a direction " + std::to_string(actual) + ", differences " + std::to_string(expected));
}

void check(const Case &c, int most_threads) {
    const Arrays inputs = draw_inputs(c);
    const Numbers grad_out = draw(c.num_queries * c.heads * c.value_width);
    const Numbers edge_grad = draw(c.num_queries * c.heads * c.features);
    const std::vector<Loops> all = all_loops();
    const auto run = [&](InputType type, int threads, const Loops &loops) {
        return Call(c, inputs, grad_out, edge_grad, type, threads).run(loops);
    };
    Case listed = c;
    listed.in_runs = false;
    const Arrays expected = Call(listed, inputs, grad_out, edge_grad, kFloat64, 1).run(all[0]);
    // A kink of relu or leaky relu at one of the numbers drawn would spoil the differences.
    if (c.normalizer != kRelu && c.score != kLeakyRelu) check_gradients(c, inputs, grad_out, edge_grad, expected);
    for (const Loops &loops : all)
        for (InputType type : {kFloat32, kFloat64, kBFloat16, kFloat16}) {
            const Arrays alone = run(type, 1, loops);
            const std::string who = std::string(loops.name) + " type " + std::to_string(type);
            for (const auto &[name, numbers] : alone)
                expect(are_close(numbers, expected.at(name), type == kFloat64 ? 1e-9 : 1e-3), c, who + ": " + name);
            for (int threads = 2; threads <= most_threads; threads++)
                expect(run(type, threads, loops) == alone, c, who + ": " + std::to_string(threads) + " threads differ");
        }
}

// ---------------------------------------------------------------- cases

std::vector<std::pair<int64_t, int64_t>> draw_pairs(int64_t num_queries, int64_t num_keys, int64_t count) {
    std::vector<std::pair<int64_t, int64_t>> pairs(count);
    for (auto &pair : pairs) pair = {below(num_queries), below(num_keys)};
    return pairs;
}

std::vector<Case> cases() {
    std::vector<Case> all;
    const auto add = [&](std::string name, int64_t N, int64_t M, int H, int D, int V, auto pairs) -> Case & {
        all.push_back({name, N, M, H, D, V, 0, 0, kDot, kSoftmax, false, false, false, false, pairs, false});
        return all.back();
    };
    using Pairs = std::vector<std::pair<int64_t, int64_t>>;
    add("nothing", 0, 0, 2, 3, 3, Pairs{});
    add("no query", 0, 3, 2, 3, 3, Pairs{});
    add("no edge", 4, 3, 2, 16, 16, Pairs{});
    add("self loop", 1, 1, 1, 8, 8, Pairs{{0, 0}});
    add("duplicates", 3, 2, 3, 8, 8, Pairs{{1, 1}, {1, 1}, {1, 1}, {2, 0}});
    for (const int H : {1, 3, 4, 5, 8, 12, 17})
        for (const auto &[D, V] : {std::pair{1, 1}, {3, 3}, {8, 8}, {16, 16}, {32, 16}, {64, 64}, {128, 7}})
            add("heads " + std::to_string(H) + " widths " + std::to_string(D) + " " + std::to_string(V), 5, 7, H, D, V,
                draw_pairs(4, 6, 30));
    for (const auto score : {kDot, kLeakyRelu, kTanh})
        for (const auto normalizer : {kSoftmax, kRelu, kSigmoid})
            for (int terms = 0; terms < 32; terms++) {
                const std::string name = std::to_string(score) + " normalizer " + std::to_string(normalizer);
                Case &c = add("score " + name + " terms " + std::to_string(terms), 9, 6, 3, 8, terms % 3 ? 8 : 5,
                              draw_pairs(8, 6, 60 + below(80)));
                c.score = score, c.normalizer = normalizer;
                c.has_bias = terms & 1, c.removes = terms & 2, c.has_dropout = terms & 4, c.is_wide = terms & 4;
                c.relations = terms & 8 ? 4 : 0, c.features = terms & 16 ? 3 : 0;
            }
    for (int hub = 0; hub < 4; hub++) {  // more edges than one part of a row holds, in one row or one key
        Pairs pairs = draw_pairs(6, 6, 20'000);
        for (auto &pair : pairs)
            if (below(20)) (hub % 2 ? pair.first : pair.second) = 2;
        Case &c = add("hub " + std::to_string(hub), 6, 6, 2, 8, 8, pairs);
        c.has_bias = c.removes = hub < 2;
        c.relations = hub < 2 ? 2 : 0, c.features = hub < 2 ? 2 : 0;
    }
    return all;
}

}  // namespace

int main(int argc, char **argv) {
    const int most_threads = argc > 1 ? std::atoi(argv[1]) : 3;
    const std::vector<Case> all = cases();
    size_t number = 0;
    for (Case c : all)
        for (const bool is_tiled : {false, true}) {
            c.is_tiled = is_tiled;
            check(c, most_threads);
            if (number++ % 5) continue;
            Case runs = c;
            std::sort(runs.pairs.begin(), runs.pairs.end());
            runs.pairs.erase(std::unique(runs.pairs.begin(), runs.pairs.end()), runs.pairs.end());
            runs.in_runs = true;
            check(runs, most_threads);
        }
    std::printf("%zu problems by rows and by tiles, some in runs, instruction set %s, %d failures\n", all.size(),
                gf_instruction_set(), failures);
    return failures > 0;
}
