-- shrunk: every rate pulled towards its pools by hierarchical empirical Bayes:
-- history -> batch -> category in the batch -> siblings of the style -> the SKU itself.
-- Each level is (what it counted + strength x the level above) / (what it was counted on + strength); the strengths are
-- pseudo-exposures fitted from history. Siblings leave the SKU itself out, so that nothing is counted twice there; the
-- pull towards them is only as strong as what they have shown: two sources of doubt, the SKU's difference from its
-- style and what is not known of the style, add up as the inverses of pseudo-exposures do.
-- Typical sizes of orders are pooled as logs (see pairs.sql): a `value` is the log of a size, and a rate as it is.
-- Grain: as_of, sku_id, rate.
-- Reads: pairs, rates (rate, mean, batch_strength, category_strength, style_strength, sku_strength).
with
history as (
    select
        rates.*,
        rate like 'typical%' as is_size,
        case when rate like 'typical%' then ln(mean) else mean end as history_value
    from rates
),

batch_pools as (
    select
        as_of,
        batch_id,
        rate,
        count(*) as batch_skus,
        cast(sum(num) as double) as num,
        cast(sum(den) as double) as den
    from pairs
    group by as_of, batch_id, rate
),

category_pools as (
    select
        as_of,
        batch_id,
        category,
        rate,
        cast(sum(num) as double) as num,
        cast(sum(den) as double) as den
    from pairs
    group by as_of, batch_id, category, rate
),

style_pools as (
    select
        as_of,
        batch_id,
        style_id,
        rate,
        sum(num) as num,
        sum(den) as den
    from pairs
    group by as_of, batch_id, style_id, rate
),

batch_level as (
    select
        batch_pools.as_of,
        batch_pools.batch_id,
        batch_pools.rate,
        batch_pools.batch_skus,
        history.is_size,
        history.history_value,
        history.category_strength,
        history.style_strength,
        history.sku_strength,
        (batch_pools.num + history.batch_strength * history.history_value)
        / (batch_pools.den + history.batch_strength) as batch_value
    from batch_pools
    inner join history on batch_pools.rate = history.rate
),

category_level as (
    select
        category_pools.as_of,
        category_pools.batch_id,
        category_pools.category,
        category_pools.rate,
        batch_level.batch_skus,
        batch_level.is_size,
        batch_level.history_value,
        batch_level.batch_value,
        batch_level.style_strength,
        batch_level.sku_strength,
        (category_pools.num + batch_level.category_strength * batch_level.batch_value)
        / (category_pools.den + batch_level.category_strength) as category_value
    from category_pools
    inner join batch_level
        on
            category_pools.as_of = batch_level.as_of
            and category_pools.batch_id = batch_level.batch_id
            and category_pools.rate = batch_level.rate
),

beside_siblings as (
    select
        pairs.as_of,
        pairs.sku_id,
        pairs.batch_id,
        pairs.rate,
        pairs.is_measured,
        cast(pairs.num as double) as num,
        cast(pairs.den as double) as den,
        cast(pairs.num_late as double) as num_late,
        cast(pairs.den_late as double) as den_late,
        cast(pairs.num - pairs.num_late as double) as num_early,
        greatest(cast(pairs.den - pairs.den_late as double), 0) as den_early,
        cast(style_pools.num - pairs.num as double) as sibling_num,
        cast(style_pools.den - pairs.den as double) as sibling_den,
        category_level.batch_skus,
        category_level.is_size,
        category_level.history_value,
        category_level.batch_value,
        category_level.category_value,
        category_level.style_strength,
        category_level.sku_strength
    from pairs
    inner join category_level
        on
            pairs.as_of = category_level.as_of
            and pairs.batch_id = category_level.batch_id
            and pairs.category = category_level.category
            and pairs.rate = category_level.rate
    inner join style_pools
        on
            pairs.as_of = style_pools.as_of
            and pairs.batch_id = style_pools.batch_id
            and pairs.style_id = style_pools.style_id
            and pairs.rate = style_pools.rate
),

style_level as (
    select
        beside_siblings.*,
        (sibling_num + style_strength * category_value) / (sibling_den + style_strength) as style_value,
        1 / (1 / sku_strength + 1 / (sibling_den + style_strength)) as own_strength
    from beside_siblings
),

sku_level as (
    select
        as_of,
        sku_id,
        batch_id,
        rate,
        is_measured,
        batch_skus,
        num,
        den,
        is_size,
        history_value,
        batch_value,
        category_value,
        style_value,
        (num + own_strength * style_value) / (den + own_strength) as sku_value,
        den / (den + own_strength) as own_weight,
        sqrt(sku_strength / (den + own_strength)) as spread,
        sku_strength / (den + own_strength) / (1 + sku_strength / style_strength) as unknown,
        (num_late + own_strength * style_value) / (den_late + own_strength) as late_value,
        (num_early + own_strength * style_value) / (den_early + own_strength) as early_value
    from style_level
),

as_rates as (
    select
        as_of,
        sku_id,
        batch_id,
        rate,
        is_measured,
        batch_skus,
        num,
        den,
        own_weight,
        spread,
        unknown,
        case when is_size then exp(history_value) else history_value end as history_rate,
        case when is_size then exp(batch_value) else batch_value end as batch_rate,
        case when is_size then exp(category_value) else category_value end as category_rate,
        case when is_size then exp(style_value) else style_value end as style_rate,
        case when is_size then exp(sku_value) else sku_value end as sku_rate,
        case when is_size then exp(late_value) else late_value end as late_rate,
        case when is_size then exp(early_value) else early_value end as early_rate
    from sku_level
),

compared as (
    select
        as_of,
        sku_id,
        rate,
        is_measured,
        num,
        den,
        sku_rate,
        category_rate,
        batch_rate,
        own_weight,
        -- How far the SKU's rate may still move, in units of how far SKUs of one style stand apart.
        spread,
        -- The same as a variance, over what was not known when nothing had been shown of it or its siblings.
        unknown,
        ln(sku_rate / history_rate) as level,
        ln(sku_rate / batch_rate) as lead,
        ln(style_rate / category_rate) as sibling_lead,
        ln(late_rate / early_rate) as trend,
        -- Place in the batch from 0 (last) to 1 (first), ties in the middle of the places they share; a SKU alone is 0.5.
        -- The rank tells how many are below, the count how many are not above.
        (
            rank() over (partition by as_of, batch_id, rate order by sku_rate asc nulls last)
            - 1
            + count(*) over (partition by as_of, batch_id, rate order by sku_rate asc nulls last)
        ) / (2.0 * batch_skus) as place
    from as_rates
)

select * from compared
