use rule test as test_hotelling_t2 with:
    wildcard_constraints:
        method=variants("hotelling_t2"),
    params:
        code=method_code("hotelling_t2"),
